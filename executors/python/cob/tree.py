"""Cells as syntax trees: exact for every cell, and the place for IPython's AST transformers and interactivity."""

from _ast import AnnAssign, Assign, AugAssign, Expr, Expression, Load, Module, Name

from cob import cells


def compile_cell(code, filename, interactivity="last_expr", transform=None):
    """A list of (code object, does its value count as a result)."""
    flags = cells.ONLY_AST | cells.TOP_LEVEL_AWAIT | cells.future_flags
    tree = compile(code, filename, "exec", flags, True)
    if transform is not None:
        tree = transform(tree)
    body = tree.body
    shown = _shown(body, interactivity)
    if shown and interactivity in ("last_expr", "last") and _ends_quietly(code, shown[-1]):
        shown = []
    parts, plain, shown = [], [], {id(node) for node in shown}
    for node in body:
        if id(node) in shown:
            if plain:
                parts.append((cells.compile_part(_module(plain, tree), filename, "exec"), False))
                plain = []
            parts.append((cells.compile_part(Expression(node.value), filename, "eval"), True))
        else:
            plain.append(node)
    if plain:
        parts.append((cells.compile_part(_module(plain, tree), filename, "exec"), False))
    return parts


def _module(body, tree):
    return Module(body, tree.type_ignores)


def _shown(body, interactivity):
    """The statements whose value is displayed (IPython's ``ast_node_interactivity``)."""
    if not body or interactivity == "none":
        return []
    if interactivity == "all":
        return [node for node in body if isinstance(node, Expr)]
    if interactivity == "last_expr_or_assign":
        target = _target(body[-1])
        if target is not None:
            body.append(_again(target, body[-1]))
    return [body[-1]] if isinstance(body[-1], Expr) else []


def _target(node):
    if isinstance(node, Assign):
        target = node.targets[0]
    elif isinstance(node, (AugAssign, AnnAssign)):
        target = node.target
    else:
        return None
    return target.id if isinstance(target, Name) else None


def _again(name, node):
    where = {key: getattr(node, key) for key in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    return Expr(Name(name, Load(), **where), **where)


def _ends_quietly(code, node):
    """Whether a ``;`` after the last expression asks for silence."""
    if ";" not in code:
        return False
    lines = code.split("\n")
    if node.end_lineno > len(lines):
        return False
    rest = lines[node.end_lineno - 1].encode("utf-8", "surrogatepass")[node.end_col_offset:]
    return rest.lstrip(b" \t\f\r)").startswith(b";")
