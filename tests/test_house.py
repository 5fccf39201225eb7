"""The house: what an install brings, what the package ships, what the README names."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiny
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aprm_jax

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
UNWANTED = {"torch", "tensorflow", "tensorflow-cpu", "tf-nightly", "clu"}

IMPORT_ALL = """
import importlib, pkgutil, sys

class Hiding:  # makes some packages look as if they were not installed
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *args):
        if name.partition(".")[0] in {blocked!r}:
            return None
        return self.finder.find_spec(name, *args)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print("imported all")
"""


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _closure(requirements: list[str]) -> set[str]:
    """Names of all that an install brings, by the metadata of what is installed."""
    found: set[str] = set()
    pending = [(Requirement(text), "") for text in requirements]
    seen = set()
    while pending:
        requirement, extra = pending.pop()
        if not _applies(requirement, extra):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                texts = importlib.metadata.requires(name) or ()
            except importlib.metadata.PackageNotFoundError:
                continue  # an optional one
            pending.extend((Requirement(text), wanted) for text in texts)
    return found


def test_the_runtime_install_brings_neither_torch_nor_tensorflow():
    closure = _closure(PROJECT["project"]["dependencies"])
    assert {"jax", "transformers", "tensorflow-datasets", "numpy"} <= closure
    assert "jinja2" in closure  # for chat templates; transformers does not bring it
    assert not closure & UNWANTED
    # The search itself must be able to find it.
    assert "torch" in _closure(PROJECT["project"]["optional-dependencies"]["parity"])


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("aprm_jax", ("torch", "tensorflow", "clu", "wandb", "beartype", "pytest")),
        ("aprm_jax.oracle", ("jax", "jaxlib", "flax", "transformers")),
    ],
)
def test_modules_import_without_what_they_must_not_need(package, blocked):
    done = _python(IMPORT_ALL.format(package=package, blocked=blocked))
    assert done.stdout.endswith("imported all\n"), done.stderr


def test_importing_the_package_leaves_jax_alone():
    use = "aprm_jax.grade('It is 1/2.', '0.5')"
    done = _python(f"import sys, aprm_jax; print({use}, 'jax' in sys.modules)")
    assert done.stdout == "True False\n", done.stderr
    public = {"PRM", "Generator", "Solver", "__version__", "grade", "search"}
    assert set(dir(aprm_jax)) == public
    with pytest.raises(AttributeError, match="Critic"):
        aprm_jax.Critic  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_api_imports_no_torch_even_where_it_is_installed(tmp_path):
    pytest.importorskip("torch")
    code = "import sys, aprm_jax; aprm_jax.PRM{}; print('torch' in sys.modules)"
    assert _python(code.format("")).stdout == "False\n"
    tiny.save(tmp_path, "prm")
    load = f".load({str(tmp_path)!r}).score('1 + 1 =', ['2'])"
    done = _python(code.format(load))
    assert done.stdout == "False\n", done.stderr


def test_nobody_is_told_to_install_torch():
    pytest.importorskip("transformers")
    done = _python(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'torch' else find(n, *a)\n"
        "import aprm_jax\naprm_jax.PRM\nfrom aprm_jax.jobs import start"
    )
    assert done.returncode == 0 and not done.stderr and not done.stdout


def test_the_console_script_is_the_command():
    module, _, function = PROJECT["project"]["scripts"]["aprm-jax"].partition(":")
    code = f"import sys; from {module} import {function}; sys.argv[1:] = ['--version']"
    done = _python(f"{code}; {function}()")
    assert done.stdout == f"aprm_jax {aprm_jax.__version__}\n", done.stderr


def test_constraints_hold_every_direct_dependency_and_no_address():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {}
    for line in lines:
        if not line.startswith("#"):
            requirement = Requirement(line)  # plain name==version, so no address
            assert requirement.url is None
            assert re.fullmatch(r"==[0-9][^,]*", str(requirement.specifier)), line
            if _applies(requirement, ""):
                name = canonicalize_name(requirement.name)
                assert name not in pinned, f"{name} is pinned twice"
                pinned[name] = requirement.specifier
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    pinned_extras = [
        text for name in ("test", "parity", "cloud") for text in extras[name]
    ]
    for text in (*project["dependencies"], *pinned_extras):
        direct = Requirement(text)
        version = str(pinned[canonicalize_name(direct.name)]).removeprefix("==")
        assert direct.specifier.contains(version), f"{text}, but constraints {version}"


def test_version_is_the_same_everywhere():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0]
    assert aprm_jax.__version__ == PROJECT["project"]["version"] == newest


def _is_data(path: Path) -> bool:
    """Whether a package ships a file as data, of its own folder or of one in it."""
    shipped = PROJECT["tool"]["setuptools"]["package-data"]
    for folder in path.parents:
        package = ".".join(folder.relative_to(REPOSITORY).parts)
        inside = path.relative_to(folder)
        globs = shipped.get(package, ())
        if any(
            len(Path(g).parts) == len(inside.parts) and inside.match(g) for g in globs
        ):
            return True
        if package == "aprm_jax":
            return False
    return False


def test_every_file_of_the_package_is_shipped():
    for path in sorted((REPOSITORY / "aprm_jax").rglob("*")):
        if path.is_dir() or path.suffix == ".pyc" or _is_data(path):
            continue
        assert path.suffix == ".py", path
        assert (path.parent / "__init__.py").is_file(), f"{path.parent}: no __init__.py"


def test_what_the_readme_names_exists():
    readme = (REPOSITORY / "README.md").read_text()
    places = "aprm_jax|benchmarks|configs|docs|notebooks"
    named = re.findall(rf"(?<![\w/])((?:{places})/[\w/.-]+\.\w+)", readme)
    assert "configs/quickstart.py" in named
    missing = sorted(name for name in set(named) if not (REPOSITORY / name).exists())
    assert not missing


def test_ci_runs_the_readmes_test_command():
    command = "pip install -e '.[test]'"
    assert command in (REPOSITORY / "README.md").read_text()
    script = (REPOSITORY / ".ci/run").read_text()
    assert "pip install --quiet -e '.[test]'" in script
    assert 'check "pytest" pytest\n' in script
