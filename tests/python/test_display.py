"""Displays and rich representations, with IPython and without it."""
import base64

import pytest

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

REPRESENTATIONS = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>html</b>'
    def _repr_markdown_(self): return '*markdown*'
    def _repr_latex_(self): return '$latex$'
    def _repr_svg_(self): return '<svg/>'
    def _repr_json_(self): return {'a': [1, 2]}
    def _repr_javascript_(self): return 'javascript'
    def _repr_png_(self): return PNG
    def _repr_jpeg_(self): return b'jpeg'
"""


def test_display_shows_the_plain_text_of_anything(kernel):
    run = kernel.run("display(1, 'two', [3])").ok()
    assert [data["text/plain"] for data in run.outputs.displays] == ["1", "'two'", "[3]"]


def test_display_needs_no_import_and_returns_nothing(kernel):
    run = kernel.run("display('x')").ok()
    assert run.outputs.result is None


def test_every_representation_is_in_the_bundle(kernel):
    run = kernel.run(f"PNG = {PNG!r}\n{REPRESENTATIONS}\nRich()").ok()
    data = run.outputs.result
    assert data["text/plain"] == "plain"
    assert data["text/html"] == "<b>html</b>"
    assert data["text/markdown"] == "*markdown*"
    assert data["text/latex"] == "$latex$"
    assert data["image/svg+xml"] == "<svg/>"
    assert data["application/json"] == {"a": [1, 2]}
    assert data["application/javascript"] == "javascript"
    assert base64.b64decode(data["image/png"]) == PNG
    assert base64.b64decode(data["image/jpeg"]) == b"jpeg"


def test_display_sends_the_same_bundle_as_a_result(kernel):
    run = kernel.run(f"PNG = {PNG!r}\n{REPRESENTATIONS}\nr = Rich()\ndisplay(r)\nr").ok()
    assert run.outputs.displays == [run.outputs.result]


def test_representations_may_bring_metadata(kernel):
    run = kernel.run("class WithMetadata:\n    def _repr_html_(self): return '<i>x</i>', {'isolated': True}\ndisplay(WithMetadata())").ok()
    [message] = run.outputs.of_type("display_data")
    assert message.content["data"]["text/html"] == "<i>x</i>"
    assert message.content["metadata"]["text/html"] == {"isolated": True}


def test_a_representation_that_returns_none_is_left_out(kernel):
    run = kernel.run("class Shy:\n    def _repr_html_(self): return None\nShy()").ok()
    assert "text/html" not in run.outputs.result


def test_a_mimebundle_has_the_last_word(kernel):
    run = kernel.run("class Bundle:\n"
                     "    def _repr_html_(self): return 'from html'\n"
                     "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
                     "        return {'text/html': 'from the bundle', 'application/x-own': 'own', 'application/vnd.x+json': {'a': 1}}\nBundle()").ok()
    data = run.outputs.result
    assert data["text/html"] == "from the bundle"
    assert data["application/x-own"] == "own"
    assert data["application/vnd.x+json"] == {"a": 1}


def test_a_mimebundle_may_bring_metadata(kernel):
    run = kernel.run("class Bundle:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
                     "        return {'text/plain': 'p'}, {'text/plain': {'m': 1}}\ndisplay(Bundle())").ok()
    assert run.outputs.of_type("display_data")[0].content["metadata"]["text/plain"] == {"m": 1}


def test_a_failing_representation_is_reported(kernel):
    run = kernel.run("class Broken:\n    def _repr_html_(self): raise ValueError('broken html')\nBroken()")
    assert "broken html" in str([m.content for m in run.outputs.messages])
    assert kernel.run("1 + 1").ok().result == "2"


def test_classes_are_not_asked_for_their_instances_representation(kernel):
    run = kernel.run("class Rich:\n    def _repr_html_(self): return 'instance'\nRich").ok()
    assert "text/html" not in run.outputs.result


def test_objects_that_have_every_attribute_are_not_fooled(kernel):
    run = kernel.run("class Everything:\n    def __repr__(self): return 'everything'\n"
                     "    def __getattr__(self, name): return lambda *a, **k: 'nonsense'\nEverything()").ok()
    assert run.outputs.result == {"text/plain": "everything"}


def test_raw_bundles_are_sent_as_they_are(kernel):
    run = kernel.run("display({'text/plain': 'p', 'application/vnd.vega.v5+json': {'mark': 'bar'}}, raw=True, metadata={'k': 'v'})").ok()
    [message] = run.outputs.of_type("display_data")
    assert message.content["data"] == {"text/plain": "p", "application/vnd.vega.v5+json": {"mark": "bar"}}
    assert message.content["metadata"] == {"k": "v"}


def test_a_display_with_id_can_be_updated(kernel):
    first = kernel.run("handle = display('one', display_id='the-id')").ok()
    [shown] = first.outputs.of_type("display_data")
    assert shown.content["transient"] == {"display_id": "the-id"}
    second = kernel.run("handle.update('two')").ok()
    [update] = second.outputs.of_type("update_display_data")
    assert update.content["data"]["text/plain"] == "'two'"
    assert update.content["transient"] == {"display_id": "the-id"}
    assert not second.outputs.displays


def test_a_display_can_choose_its_own_id(kernel):
    run = kernel.run("handle = display('x', display_id=True)\nhandle.update('y')").ok()
    [shown], [update] = run.outputs.of_type("display_data"), run.outputs.of_type("update_display_data")
    assert shown.content["transient"]["display_id"] == update.content["transient"]["display_id"] != ""


def test_display_can_update_by_id(kernel):
    run = kernel.run("display('x', display_id='other-id')\ndisplay('y', display_id='other-id', update=True);").ok()
    assert [m.type for m in run.outputs.messages] == ["display_data", "update_display_data"]


def test_a_handle_does_not_show_itself_twice(kernel):
    run = kernel.run("display('x', display_id='shown-once');").ok()
    assert [m.type for m in run.outputs.messages] == ["display_data"]


def test_update_display_of_ipython(rich):
    run = rich.run("from IPython.display import display, update_display\ndisplay('a', display_id='ipy')\nupdate_display('b', display_id='ipy')").ok()
    assert [m.type for m in run.outputs.messages if m.type != "execute_result"] == ["display_data", "update_display_data"]


@pytest.mark.parametrize("wait", [True, False])
def test_clear_output_says_whether_to_wait(rich, wait):
    run = rich.run(f"from IPython.display import clear_output\nclear_output(wait={wait})\nprint('new')").ok()
    assert [m.content for m in run.outputs.of_type("clear_output")] == [{"wait": wait}]


@pytest.mark.parametrize("code, mime, value", [
    ("HTML('<b>x</b>')", "text/html", "<b>x</b>"), ("Markdown('*x*')", "text/markdown", "*x*"),
    ("Latex('$x$')", "text/latex", "$x$"), ("Math('x')", "text/latex", "$\\displaystyle x$"),
    ("SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "image/svg+xml", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
    ("JSON({'a': 1})", "application/json", {"a": 1}), ("Javascript('1')", "application/javascript", "1"),
    ("Pretty('pp')", "text/plain", "pp"), ("Code('x = 1', language='python')", "text/latex", None),
    ("IFrame('https://example.invalid', 10, 10)", "text/html", None), ("ProgressBar(10)", "text/html", None),
])
def test_ipythons_display_objects(rich, code, mime, value):
    data = rich.run(f"from IPython.display import *\n{code}").ok().outputs.result
    assert mime in data and (value is None or data[mime] == value)


def test_an_image_keeps_its_bytes_and_size(rich):
    run = rich.run(f"from IPython.display import Image\nImage(data={PNG!r}, width=5, height=7)").ok()
    [message] = run.outputs.of_type("execute_result")
    assert base64.b64decode(message.content["data"]["image/png"]) == PNG
    assert message.content["metadata"]["image/png"] == {"width": 5, "height": 7}


def test_display_with_ipythons_publish_functions(rich):
    run = rich.run("from IPython.display import publish_display_data, display_html, display_png\n"
                   "publish_display_data({'text/plain': 'published'})\ndisplay_html('<u>u</u>', raw=True)").ok()
    assert run.outputs.displays == [{"text/plain": "published"}, {"text/html": "<u>u</u>"}]


def test_ipythons_formatters_can_be_extended(rich):
    run = rich.run("class Plain:\n    pass\n"
                   "get_ipython().display_formatter.formatters['text/html'].for_type(Plain, lambda p: '<p>registered</p>')\nPlain()").ok()
    assert run.outputs.result["text/html"] == "<p>registered</p>"


def test_ipython_display_hook_method_wins(kernel):
    run = kernel.run("class Own:\n    def _ipython_display_(self): print('own way')\nOwn()").ok()
    assert run.outputs.plain() == [("stdout", "own way\n")]


def test_ipythons_pretty_printer_is_used_for_long_results(rich):
    shown = rich.run("{n: 'x' * 30 for n in range(5)}").ok().result
    assert shown.count("\n") == 4
