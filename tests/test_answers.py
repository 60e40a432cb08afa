"""Answers that nobody expects: each makes a project whose files parse, or is refused in one sentence."""

import itertools
import json
import shutil
import sys
import tomllib
from collections import Counter
from pathlib import Path

import yaml
from conftest import TEMPLATE
from cookiecutter.generate import generate_context, generate_files
from cookiecutter.prompt import prompt_for_config
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path[:0] = [str(TEMPLATE / "hooks")]

import answers  # noqa: E402

FREE = ("project_name", "description", "author_name")
ODD = ["<<", ">>", "<% ", " %>", "<#", "#>", "{{", "}}", "{%", "${{ secrets.X }}", "7*7", "<", "%"]
ODD += ['"', "'", '"""', "\\", "`id`", "$(id)", "$HOME", "%s", "\0", "\n", "\r\n", "\t", " ", "|"]
ODD += ["- ", ": ", "# ", "---", "&a ", "*a", "!!python/object:os.system", "? ", "<b>", "-->", "é"]
ODD += ["\u2028", "\u202e", "\ufeff", "\ue000", "\U0001f600", "\x85", "null", "~", "0x1F", "[", "]"]
WORDS = st.sampled_from(["late", "flights", "churn of 2013", "Nîmes", "it's", "航班"])
ORDINARY = st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\')


def text(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Ordinary words, among which the pieces may stand."""
    return st.lists(st.one_of(WORDS, *pieces), min_size=1, max_size=4).map(" ".join)


TEXT = st.one_of(
    text(st.text(ORDINARY, max_size=10)),
    text(st.text(ORDINARY, max_size=10)),
    text(
        st.sampled_from([piece for piece in ODD if piece.isprintable() and piece[0] not in '"\\'])
    ),
    text(st.sampled_from(ODD)),
    st.text(max_size=10),
)
NAME = st.one_of(*[st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)] * 4, TEXT)
ADDRESS = st.one_of(*[st.from_regex(r"[a-z.+']{1,9}@[a-z]{2,9}\.org", fullmatch=True)] * 4, TEXT)
ANSWERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(FREE, TEXT)
    | {"project_slug": NAME, "package_name": NAME, "author_email": ADDRESS},
)


def check(path: Path, parsed: set[tuple[str, bytes]]) -> None:
    """The file parses, as what its name says that it is; equal ones only once."""
    content = path.read_bytes()
    if (path.suffix, content) in parsed:
        return
    parsed.add((path.suffix, content))
    if path.suffix == ".py":
        compile(content, path, "exec")
    elif path.suffix in (".yaml", ".yml"):
        list(yaml.safe_load_all(content))
    elif path.suffix == ".toml":
        tomllib.loads(content.decode())
    elif path.suffix == ".ipynb":
        json.loads(content)


def answered(given: dict[str, str], output: Path) -> dict:
    """What cookiecutter does before the first hook: all answers, the defaults rendered."""
    context = generate_context(str(TEMPLATE / "cookiecutter.json"), extra_context=given)
    context["cookiecutter"] |= prompt_for_config(context, no_input=True)
    about = {"_template": str(TEMPLATE), "_repo_dir": str(TEMPLATE), "_output_dir": str(output)}
    context["cookiecutter"] |= about
    return context


def test_300_random_answers_generate_or_are_refused_in_one_sentence(tmp_path, monkeypatch):
    """By cookiecutter's own functions in this process, for its command takes a second."""
    monkeypatch.syspath_prepend(str(TEMPLATE))  # as cookiecutter does, for the extension
    count: Counter[str] = Counter()
    parsed: set[tuple[str, bytes]] = set()
    numbers = itertools.count()

    @given(ANSWERS, st.sampled_from("0002"))
    @settings(max_examples=300, derandomize=True, deadline=None, database=None)
    def generate(given: dict[str, str], level: str) -> None:
        output = tmp_path / str(next(numbers))
        marked = any(answers.template_mark(text) for text in given.values())
        try:
            context = answered(given | {"maturity_level": level}, output)
        except SystemExit as end:
            assert marked, end.code
            check_sentence(end.code)
            count["not rendered"] += 1
            return
        assert not marked, given
        problem = answers.problem(context["cookiecutter"])
        if problem:
            check_sentence(problem)
            count["refused"] += 1
            return
        project = Path(generate_files(str(TEMPLATE), context, str(output), accept_hooks=False))
        count["generated"] += 1
        made = yaml.safe_load((project / ".cookiecutter.yaml").read_text(encoding="utf-8"))
        assert given.items() <= made["default_context"].items()
        for path in project.rglob("*"):
            if path.is_file():
                check(path, parsed)
        shutil.rmtree(output)

    generate()
    assert sum(count.values()) >= 300
    assert min(count[key] for key in ("not rendered", "refused", "generated")) >= 30, count


def check_sentence(text: str) -> None:
    """One line, and no traceback, that says what is wrong and what to do."""
    assert text.isprintable(), text
    assert "Traceback" not in text
    assert ": " in text, text
