"""The ``user_expressions`` of an execute request: evaluated after the cell, answered in the reply."""

from cob import display, encoding, engine, errors


def evaluate(expressions_json):
    return encoding.dumps({name: _one(text) for name, text in encoding.loads(expressions_json).items()})


def _one(text):
    try:
        value = eval(compile(text, "<user expression>", "eval", 0, True), engine.namespace)
        data, metadata = display.formatted(value)
    except Exception as error:
        lines = [errors.clean(line) for line in errors.render(error)]
        return {"status": "error", "ename": errors.name(error), "evalue": errors.text(error), "traceback": lines}
    return {"status": "ok", "data": data, "metadata": metadata}
