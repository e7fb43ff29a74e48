"""Models from Python files: `graphc run net.py:lenet5`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from graphc.errors import GraphcError, ModelError
from graphc.ir.graph import Graph
from graphc_dsl.arguments import nearest
from graphc_dsl.models import Model


def load_script(path: str | os.PathLike[str], name: str | None = None) -> Model | Graph:
    """Run a Python file (it may do anything: trust it) and return its model, or graph, called `name`.

    Without a name the file must define exactly one model. The file's folder is importable while it runs. Raises ModelError, with the
    line of the file where it fails.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"there is no file {str(file)!r}", hint="give the path of a Python file, e.g. net.py:lenet5")
    module = _run(file.resolve())
    models = {key: value for key, value in vars(module).items() if isinstance(value, (Model, Graph))}
    if name is not None:
        if name not in models:
            found = nearest(name, models) if models else "a function with @graphc.model"
            raise ModelError(f"{str(file)!r} defines no model {name!r}", hint=found)
        return models[name]
    own = {key: value for key, value in models.items() if not isinstance(value, Model) or value.__module__ == module.__name__}
    if len(own) != 1:
        listed = ", ".join(f"{file.name}:{key}" for key in sorted(own)) if own else "a function with @graphc.model"
        raise ModelError(f"{str(file)!r} defines {len(own) or 'no'} model{'s' if len(own) > 1 else ''}", hint=listed)
    return next(iter(own.values()))


def _run(file: Path) -> ModuleType:
    title = f"graphc_script_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(title, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{str(file)!r} is no Python file", hint="its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module  # dataclasses and pickle look it up
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except GraphcError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(file)), None)
        line = error.lineno if isinstance(error, SyntaxError) else line
        where = f"{file}:{line}" if line else str(file)
        raise ModelError(f"the script fails with {type(error).__name__}: {error}", where=where, hint=f"python {file} shows more") from error
    finally:
        sys.path.remove(str(file.parent))
    return module
