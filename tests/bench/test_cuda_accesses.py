"""The page about the kernels' accesses; that they are counted rightly is kernels/tests/watch_faults.sh's to show."""

import pytest

from bench.cuda_accesses import PAGE, Line, page, parse, source_of

WATCHED = """\
blend_kernel\tforward.cu:1\tstage\tcard load\t16\t10\t320\t320\t160\t200
blend_kernel\tforward.cu:1\tblend_kernel\tcard load\t16\t2\t64\t40\t32\t40
blend_kernel\tforward.cu:2\tblend_kernel\tshared store\t4\t5\t160\t10\t5\t0
project_kernel\tproject.cu:3\tproject_kernel\tcard store\t4\t1\t32\t4\t4\t4
"""


def test_what_one_line_of_the_source_does_is_added_up():
    lines = parse(WATCHED)
    assert lines[0] == Line("blend_kernel", "forward.cu:1", "card load", 16, requests=12, lanes=384, done=360, least=192, first=240)
    assert [line.in_vain for line in lines] == [48, 5, 0]


def test_another_file_is_refused_by_its_line():
    with pytest.raises(ValueError, match="'three words here' is no line of SPLAT_WATCH_ACCESSES"):
        parse("three words here")


def test_the_page_puts_first_what_does_most_in_vain_and_leaves_out_what_does_nothing():
    text = page(parse(WATCHED))
    worst = text[text.index("## Most in vain, in the card's memory") : text.index("## blend_kernel")]
    assert worst.index("forward.cu:1") < worst.index("forward.cu:2")
    assert "project.cu:3" not in worst
    assert "| 12 | 32.0 | 30.0 | 20.0 | 16.0 |" in worst


def test_the_source_line_is_shown_and_a_place_that_is_none_is_not():
    assert source_of("project.cu:1").startswith("// Gaussians to screen records")
    assert source_of("project.cu:0") == source_of("project.cu:99999") == source_of("other.cu:1") == source_of("?") == ""


def test_the_page_that_is_kept_is_of_this_form():
    assert PAGE.read_text().startswith(page([])[:200])
