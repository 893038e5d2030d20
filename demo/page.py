"""The page: Gradio's components and what happens between them."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import numpy as np

from dovit.demo.view import View, Viewer, from_query, to_query
from dovit.runtime.errors import DovitError, UsageError
from dovit.runtime.images import as_rgb

if TYPE_CHECKING:
    import gradio as gr
    from PIL import Image

CSS = "footer { display: none !important } .gradio-container { max-width: 1200px !important }"
# the address follows the state, so that a reload or a bookmark restores it; and it is shown as a link to copy
SET_ADDRESS = """(query) => {
    const theme = new URLSearchParams(location.search).get("__theme");
    const address = location.origin + location.pathname + "?" + query;
    history.replaceState(null, "", theme ? address + "&__theme=" + theme : address);
    return address;
}"""


def import_gradio() -> Any:
    """Gradio, with its usage statistics turned off. Raises UsageError where it is missing."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UsageError(f"dovit-demo needs the package {error.name}: pip install 'dovit[demo]'") from None
    return gradio


def build_page(viewer: Viewer, title: str) -> gr.Blocks:
    """The page of a bundle."""
    gr = import_gradio()
    manifest = viewer.session.manifest
    buttons = ["download", "fullscreen"]  # without Gradio's share button, which uploads the picture to another server
    decisions = range(1, len(manifest.decisions) + 1)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(
            f"# {_plain(title)}\nMove a threshold ξ: a token stops at a decision where its confidence is greater than ξ."
        )
        key, query = gr.State(""), gr.Textbox(visible=False)
        with gr.Row():
            with gr.Column(min_width=320):
                image = gr.Image(
                    label="Image: drop one, or take an example", type="pil", image_mode="RGB", sources=["upload", "clipboard"],
                    height=300, elem_id="input",
                )  # fmt: skip
                examples = gr.Gallery(
                    value=[(example, str(n)) for n, example in enumerate(viewer.images.examples, start=1)],
                    label="Examples", columns=3, height=150, allow_preview=False, interactive=False, elem_id="examples",
                    buttons=[],
                )  # fmt: skip
            with gr.Column(min_width=320):
                overlay = gr.Image(
                    label="Labels over the image", interactive=False, height=300, elem_id="overlay", buttons=buttons
                )
                legend = gr.HTML()
                labels = gr.Image(label="Labels", interactive=False, height=150, elem_id="labels", buttons=buttons)
        sliders = []
        with gr.Row():
            for number, own in zip(decisions, manifest.thresholds, strict=True):
                sliders.append(
                    gr.Slider(0, 1, value=own, step=0.001, label=f"ξ of decision {number}", min_width=200, elem_id=f"xi{number}")
                )  # fmt: skip
        summary = gr.HTML(elem_id="summary")
        keeps: list[Any] = []
        confidences: list[Any] = []
        for shown, what in ((keeps, "Kept after"), (confidences, "Confidence at")):
            with gr.Row():
                for number in decisions:
                    name = f"{what.split()[0].lower()}{number}"
                    shown.append(
                        gr.Image(
                            label=f"{what} decision {number}",
                            interactive=False,
                            height=200,
                            min_width=260,
                            elem_id=name,
                            buttons=buttons,
                        )
                    )
        with gr.Row():
            tokens = gr.BarPlot(
                x="block", y="tokens", title="Tokens of each block", height=260, min_width=300, elem_id="tokens"
            )
            macs = gr.BarPlot(
                x="block", y="GMACs", title="GMACs of each block", height=260, min_width=300, elem_id="macs"
            )
        link = gr.Textbox(label="Link to this state", interactive=False, buttons=["copy"], elem_id="link")

        outputs = [overlay, labels, legend, summary, *keeps, *confidences, tokens, macs, query]

        def show(chosen: str, *thresholds: float) -> list[Any]:
            if not chosen:
                return [gr.skip()] * len(outputs)
            try:
                view = viewer.view(chosen, thresholds)
            except DovitError as error:
                raise gr.Error(str(error)) from None
            return [
                view.overlay, view.labels, view.legend, f'<div aria-live="polite">{view.summary}</div>',
                *view.keep_maps, *view.confidence_maps, *_plots(gr, view), to_query(chosen, thresholds),
            ]  # fmt: skip

        def take(picture: Image.Image | None) -> Any:
            if picture is None:
                return gr.skip()
            try:
                return viewer.images.add(as_rgb(picture))
            except DovitError as error:
                raise gr.Error(str(error)) from None

        def choose(event: Any) -> tuple[str, np.ndarray]:
            return f"example-{event.index}", viewer.images.examples[int(event.index)]

        def restore(request: Any) -> list[Any]:
            try:
                chosen, thresholds = from_query(dict(request.query_params), viewer)
            except DovitError as error:
                gr.Warning(str(error))
                chosen, thresholds = "example-0", manifest.thresholds
            return [chosen, viewer.images.get(chosen), *thresholds]

        # Gradio gives what an argument's annotation asks for
        choose.__annotations__["event"], restore.__annotations__["request"] = gr.SelectData, gr.Request
        run: dict[str, Any] = {
            "fn": show, "inputs": [key, *sliders], "outputs": outputs, "show_progress": "minimal", "concurrency_limit": 1,
        }  # fmt: skip
        address: dict[str, Any] = {"fn": None, "inputs": query, "outputs": link, "js": SET_ADDRESS}
        page.load(restore, None, [key, image, *sliders]).then(**run).then(**address)
        image.upload(take, image, key).then(**run).then(**address)
        examples.select(choose, None, [key, image]).then(**run).then(**address)
        if sliders:
            gr.on([slider.input for slider in sliders], trigger_mode="always_last", **run).then(**address)
    return page


def check_address(host: str, port: int | None) -> None:
    """Raises UsageError where nothing can be served at `host`, and DovitError where its port is taken: Gradio would try each
    port for seconds. A name may stand for several addresses, of which one is enough."""
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(host.strip("[]"), port or 0, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, where in found:
            try:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
                    probe.bind(where)
                return
            except OSError as error:
                failure = error
    except (OSError, ValueError) as error:  # no such name, or none that can be one
        failure = error
    reason = getattr(failure, "strerror", None) or failure
    if getattr(failure, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
        raise DovitError(f"{host}:{port} cannot be served at ({reason}): give another --port or --host")
    raise UsageError(
        f"--host {host}: not an address of this machine ({reason}); give 127.0.0.1, or 0.0.0.0 for all its addresses"
    )


def launch(page: gr.Blocks, host: str, port: int | None) -> str:
    """Serve the page in the background; returns its address. Raises DovitError where the port is taken."""
    gr = import_gradio()
    logging.getLogger("uvicorn.error").addFilter(_is_ours_to_show)
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none is fetched
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, show_error=True,
            max_file_size="64mb", footer_links=[], theme=gr.themes.Default(**fonts), css=CSS, ssr_mode=False,
        )  # fmt: skip
    except OSError:
        where = f"{host}:{port}" if port else f"{host}, ports 7860 to 7959,"
        raise DovitError(f"{where} is in use: give another --port or --host") from None
    return str(address)


def _is_ours_to_show(record: logging.LogRecord) -> bool:
    """Not the traceback of a picture whose transfer ended early, as where a browser's tab is closed, nor a port that is taken:
    Gradio tries the next, and `launch` says where none is left."""
    if isinstance(record.msg, OSError):
        return False
    return record.exc_info is None or getattr(record.exc_info[0], "__name__", "") != "LocalProtocolError"


def _plots(gr: Any, view: View) -> list[Any]:
    import pandas

    tables = []
    for name, rows, most in (
        ("tokens", view.tokens, view.dense_tokens),
        ("GMACs", view.macs, max((value for _, value in view.macs), default=1)),
    ):
        table = pandas.DataFrame(rows, columns=["block", name])
        tables.append(gr.BarPlot(value=table, y_lim=[0, most], sort=[row[0] for row in rows]))
    return tables


def _plain(text: str) -> str:
    """Text whose characters mean nothing in Markdown."""
    return "".join(f"&#{ord(c)};" if c in "\\`*_{}[]()<>#+-.!|&~" else c for c in text)
