"""What is told of the Python that ran."""

import platform

from tests.bench.interpreter import in_words, interpreter


def test_this_python_is_told_of_with_its_pace() -> None:
    told = interpreter()
    line = in_words(told)
    assert f"{platform.python_implementation()} {platform.python_version()} in " in line
    assert 5 < told["pace_ns"] < 100_000
    assert f"{told['pace_ns']} ns" in line


def test_options_of_the_build_are_named_where_they_are_known() -> None:
    told = interpreter() | {"options": ["--enable-optimizations", "--with-lto"]}
    assert "--enable-optimizations, --with-lto: " in in_words(told)
    assert "no option that says optimised: " in in_words(told | {"options": []})


def test_results_of_before_name_a_version() -> None:
    assert in_words("3.11.7") == "Python 3.11.7."
