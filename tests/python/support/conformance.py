"""Samples for jupyter_kernel_test. Here, because pytest would collect these classes from a test file."""
import jupyter_kernel_test

from support import target


class PythonKernel(jupyter_kernel_test.KernelTests):
    kernel_name = "rich"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('to stderr', file=sys.stderr)"
    completion_samples = [{"text": "zi", "matches": {"zip"}}, {"text": "isinst", "matches": {"isinstance"}}]
    complete_code_samples = ["1", "x = [1, 2]", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2", "f("]
    invalid_code_samples = ["import = 7q", "x = = 1"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('wanted')"
    code_execute_result = [{"code": "1+2+3", "result": "6"}, {"code": "[n * n for n in range(4)]", "result": "[0, 1, 4, 9]"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>bold</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math(r'\\frac{1}{2}'))", "mime": "text/latex"},
        {"code": "display({'text/plain': 'raw', 'image/svg+xml': '<svg/>'}, raw=True)", "mime": "image/svg+xml"},
    ]
    code_history_pattern = "1?2*"
    # ipykernel answers session 0 to a range of session 0; the test wants the real number.
    supported_history_operations = ("tail", "range", "search") if target.IS_COB else ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class BareKernel(PythonKernel):
    kernel_name = "bare"
    code_display_data = [{"code": "display({'text/plain': 'raw', 'image/svg+xml': '<svg/>'}, raw=True)", "mime": "image/svg+xml"}]
    code_clear_output = ""  # needs IPython


class Welcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = "rich"
    support_iopub_welcome = True


class JavaScriptKernel(jupyter_kernel_test.KernelTests):
    kernel_name = "javascript"
    language_name = "typescript"
    file_extension = ".ts"
    code_hello_world = "console.log('hello, world')"
    code_stderr = "console.error('to stderr')"
    completion_samples = [{"text": "parseFl", "matches": {"parseFloat"}}, {"text": "'abc'.toUpper", "matches": {"toUpperCase"}},
                          {"text": "const jupyterSample = 1; jupyterSam", "matches": {"jupyterSample"}}]
    complete_code_samples = ["1", "const x: number[] = [1, 2]", "function f(x) {\n  return x * 2\n}", "await f(1)", "import 'x'"]
    incomplete_code_samples = ["console.log(`hello", "function f(x) {\n  x * 2", "f(", "/* a comment"]
    invalid_code_samples = ["import = 7q", "x = = 1", ")"]
    code_generate_error = "throw new TypeError('wanted')"
    code_execute_result = [{"code": "1+2+3", "result": "6"}, {"code": "[0, 1, 2, 3].map((n: number) => n * n)", "result": "[ 0, 1, 4, 9 ]"}]
    code_display_data = [
        {"code": "cob.display({'text/plain': 'raw', 'image/svg+xml': '<svg/>'}, {raw: true})", "mime": "image/svg+xml"},
        {"code": "await Deno.jupyter.display(Deno.jupyter.html`<b>bold</b>`)", "mime": "text/html"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "parseInt"
    code_clear_output = "cob.clearOutput()"


class JavaScriptWelcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = "javascript"
    support_iopub_welcome = True
