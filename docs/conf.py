"""The site of `make docs`: examples run while it is built, or those that DOCS_EXAMPLES matches."""

import os
import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import ExplicitOrder

import nni_aiop

HERE = Path(__file__).parent
RUNS = HERE / "_build" / "runs"

project = "nni_aiop"
author = "the nni_aiop authors"
version = release = nni_aiop.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**/*.md5", "sg_execution_times.rst"]
html_theme = "furo"
html_title = "nni_aiop"
html_show_sourcelink = False
html_show_copyright = False
smartquotes = False  # two dashes of an option stay two
html_theme_options = {"navigation_with_keys": True}
html_css_files = ["wide.css"]
html_static_path = ["_static"]
# A code block of these pages may be a command, Python or what is printed; none is guessed at.
highlight_language = "none"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# A single backtick is code in the docstrings.
default_role = "code"
# What scikit-learn adds to every estimator, with references into its own documentation.
SKLEARN = "set_fit_request, set_predict_request, set_score_request"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": SKLEARN}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Notation"]
suppress_warnings = ["config.cache"]  # the two functions below are part of the configuration


# Modules that others import, and scripts that need a network of machines or timm.
NOT_SHOWN = ("user_space", "shrink_space", "phone_space", "worker", "ray_tune", "shrink_timm")


def arguments(gallery_conf: dict[str, object], script_vars: dict[str, str]) -> list[str]:
    """What an example is called with: its results go into the build's folder."""
    source = Path(script_vars["src_file"])
    out = RUNS / source.stem
    shutil.rmtree(out, ignore_errors=True)
    return ["--out", str(out)] if '"--out"' in source.read_text() else []


class WrittenPictures:
    """Pictures that an example has written into its folder."""

    def __repr__(self) -> str:
        return "WrittenPictures"

    def __call__(self, block, block_vars, gallery_conf):  # type: ignore[no-untyped-def]
        shown = []
        for path in sorted((RUNS / Path(block_vars["src_file"]).stem).glob("*.png")):
            target = next(block_vars["image_path_iterator"])
            shutil.copy(path, target)
            shown.append(target)
        return figure_rst(shown, gallery_conf["src_dir"])


sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": os.environ.get("DOCS_EXAMPLES", "/"),
    "ignore_pattern": rf"(^|/)({'|'.join(NOT_SHOWN)})\.py",
    "subsection_order": ExplicitOrder(["*"]),
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": (WrittenPictures(),),
    "reset_argv": arguments,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "plot_gallery": True,
    "abort_on_example_error": True,
}
