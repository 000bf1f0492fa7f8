"""What surrounds the variables of a session: the interpreter, its packages, the folder, random numbers."""

import os
import sys

from cob.bundle import rebuild

PACKAGES_MAX = 1000
SOURCE_BYTES_MAX = 4 << 20  # of cells whose functions are saved: tracebacks show them, `inspect` finds them
NAMES_MAX = 10_000  # of environment variables
_OF_TYPES = ("FunctionType", "CodeType", "CellType", "MethodType", "BuiltinFunctionType", "MappingProxyType", "ModuleType",
             "SimpleNamespace", "GeneratorType", "CoroutineType", "FrameType", "TracebackType", "NoneType",
             "NotImplementedType", "EllipsisType", "GetSetDescriptorType", "MemberDescriptorType", "WrapperDescriptorType",
             "MethodWrapperType", "MethodDescriptorType", "ClassMethodDescriptorType", "AsyncGeneratorType", "UnionType")


def known():
    """Objects that are the same in every session, by identity: how each is found again there."""
    import types

    found = {id(sys.modules["__main__"].__dict__): (rebuild.namespace, ())}
    for name in ("stdout", "stderr", "stdin", "__stdout__", "__stderr__", "__stdin__"):
        stream = getattr(sys, name, None)
        if stream is not None:
            found.setdefault(id(stream), (rebuild.attribute, ("sys", name)))
    for name in ("environ", "environb"):
        found[id(getattr(os, name))] = (rebuild.attribute, ("os", name))
    found[id(sys.modules)] = (rebuild.attribute, ("sys", "modules"))
    for name in _OF_TYPES:
        kind = getattr(types, name, None)
        if kind not in (None, type(None), type(NotImplemented), type(...), types.SimpleNamespace):
            found[id(kind)] = (rebuild.attribute, ("types", name))
    shell = getattr(sys.modules.get("cob.engine"), "shell", None)
    if shell is not None:
        found[id(shell)] = (rebuild.shell, ())
    return found


def runtime(modules):
    """Where a bundle is made; ``modules``: what its values need."""
    return {
        "implementation": sys.implementation.name, "version": "%d.%d.%d" % sys.version_info[:3], "abi": _abi(),
        "platform": f"{sys.platform}-{os.uname().machine}", "packages": _packages(modules),
    }


def _abi():
    import _imp

    return _imp.extension_suffixes()[0].strip(".").removesuffix(".so")


def _packages(modules):
    """Distributions and their versions; of the standard library and of loose files there are none."""
    tops = {name.partition(".")[0] for name in modules if type(name) is str}
    tops = sorted(tops - sys.stdlib_module_names - {"cob", "__main__"})[:PACKAGES_MAX]
    if not tops:
        return {}
    from importlib import metadata

    found, by_module = {}, None
    for top in tops:
        try:
            found[top] = metadata.version(top)
            continue
        except Exception:  # none of that name, or one whose description is broken
            pass
        try:
            by_module = by_module if by_module is not None else metadata.packages_distributions()
            for name in by_module.get(top, ())[:1]:
                found[name] = metadata.version(name)
        except Exception:  # as above: it is told by its absence
            continue
    return found


def differences(saved):
    """Sentences: why a bundle that was made there may not fit here."""
    here = runtime(())
    reasons = []
    for name, words in (("implementation", "implementation of Python"), ("abi", "ABI"), ("platform", "platform")):
        if saved.get(name) != here[name]:
            reasons.append(f"it was made with the {words} {saved.get(name)}, and this is {here[name]}")
    minor = [text.split(".")[:2] for text in (str(saved.get("version")), here["version"])]
    if minor[0] != minor[1]:
        reasons.append(f"it was made with Python {saved.get('version')}, and this is {here['version']}")
    packages = saved.get("packages") or {}
    if packages:
        from importlib import metadata

        for name, version in packages.items():
            try:
                now = metadata.version(name)
            except Exception:  # not installed, or its description is broken
                reasons.append(f"it needs {name} {version}, which is not here")
                continue
            if now != version:
                reasons.append(f"it was made with {name} {version}, and here is {now}")
    return reasons


def describe():
    """What a bundle keeps beside the variables. Names of environment variables, and never a value."""
    facts = {
        "path": [entry for entry in sys.path if type(entry) is str and (not entry or os.path.exists(entry))],
        "environment": sorted(os.environ)[:NAMES_MAX],
        "recursion_limit": sys.getrecursionlimit(),
    }
    try:
        facts["folder"] = os.getcwd()
    except OSError:
        pass  # the folder is gone
    if "cob.engine" in sys.modules:
        from cob import cells, engine

        facts.update(count=engine.count, futures=cells.future_flags)
    if "random" in sys.modules:
        facts["random"] = sys.modules["random"].getstate()
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        kind, keys, *rest = numbers.get_state()
        if kind == "MT19937":
            facts["numpy_random"] = [kind, keys.tolist(), *rest]
    return facts


def sources(files):
    """The text of the cells that functions come from, newest first until it is too much."""
    cells = sys.modules.get("cob.cells")
    found, size = {}, 0
    if cells is not None:
        for name in [name for name in reversed(cells.sources) if name in files]:
            size += len(cells.sources[name][1])
            if size > SOURCE_BYTES_MAX:
                break
            found[name] = cells.sources[name]
    return {"sources": found}


def return_to(facts, findings):
    """Make the surroundings what they were, as far as they exist; what is left over becomes a finding."""
    _return_to_folder(facts.get("folder"), findings)
    if "path" in facts:
        gone = [entry for entry in facts["path"] if entry and not os.path.exists(entry)]
        wanted = [entry for entry in facts["path"] if entry not in gone]
        sys.path[:] = wanted + [entry for entry in sys.path if entry not in wanted]
        for entry in gone:
            findings.append(_finding("path", f"the entry {entry!r} of sys.path does not exist here"))
    if facts.get("recursion_limit", 0) > sys.getrecursionlimit():
        sys.setrecursionlimit(facts["recursion_limit"])
    absent = [name for name in facts.get("environment", ()) if name not in os.environ]
    if absent:
        listed = ", ".join(absent[:20]) + (", …" if len(absent) > 20 else "")
        findings.append(_finding("environment", f"environment variables that are not set here: {listed}"))
    cells = sys.modules.get("cob.cells")
    if cells is not None:
        cells.future_flags |= facts.get("futures", 0) & cells.FUTURES
        for name, (count, text) in reversed(facts.get("sources", {}).items()):
            cells.keep(name, text, count)


def _return_to_folder(folder, findings):
    if folder is None:
        return
    try:
        os.chdir(folder)
    except OSError as error:
        findings.append(_finding("folder", f"the working directory {folder!r} cannot be entered: {error.strerror}"))


def return_to_random(facts, findings):
    """Last of all: what is loaded may have used random numbers."""
    try:
        if "random" in facts:
            import random

            version, numbers, gauss = facts["random"]
            random.setstate((version, tuple(numbers), gauss))
        if "numpy_random" in facts and "numpy" in sys.modules:
            import numpy.random

            kind, keys, *rest = facts["numpy_random"]
            numpy.random.set_state((kind, numpy.array(keys, "uint32"), *rest))
    except (ValueError, TypeError) as error:
        findings.append(_finding("random", f"the state of random numbers cannot be set: {error}"))


def _finding(kind, text):
    return {"kind": kind, "text": text, "blocks": False}
