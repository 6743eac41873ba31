"""`python -m benchmarks.peers.daft_frame FOLDER --out OUT`: a stack over a folder as Daft's guides would write it.

Paths by `from_glob_path`, `download`, `decode_image`, a function that makes large pictures small, a class with a batch
method for the stack, `write_parquet`: https://docs.daft.ai (custom code, multimodal data). Daft is not in the lock:
`uv pip install --no-deps --target DIR daft`, and PYTHONPATH=DIR.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.peers.scorer import BATCH, FrameScorer, parse_call, read_labels, shrink_picture, tell


def main() -> None:
    """Score the folder, write Parquet, tell the times."""
    given = parse_call(__doc__ or "")
    import daft
    from daft import col
    from daft.functions import decode_image, download

    labels = read_labels(given.config, given.settings)
    ready = given.out.parent / f"{given.out.name}.ready"

    @daft.cls(max_concurrency=1)
    class StackClass:
        def __init__(self, config: str | None, settings: list[str], ready: str) -> None:
            self.scorer = FrameScorer(config, settings)
            Path(ready).write_text(repr(self.scorer.ready))

        @daft.method.batch(
            return_dtype=daft.DataType.fixed_size_list(daft.DataType.float32(), len(labels)), batch_size=BATCH
        )
        def score(self, images: daft.Series) -> Any:  # noqa: ANN401 - what Daft makes a column of
            return list(self.scorer.score(images.to_pylist()))

    @daft.func(return_dtype=daft.DataType.image("RGB"))
    def shrink(image: Any) -> Any:  # noqa: ANN401 - Daft gives and takes arrays
        return shrink_picture(image, given.shrink)

    pictures = daft.from_glob_path(f"{given.folder}/*")
    if given.shrink:  # or it decodes hundreds of large pictures at once, 36 MB each
        pictures = pictures.into_batches(BATCH)
    pictures = pictures.with_column("image", decode_image(download(col("path")), mode="RGB"))
    if given.shrink:
        pictures = pictures.with_column("image", shrink(col("image")))
    stack = StackClass(given.config, given.settings, str(ready))
    scored = pictures.with_column("scores", stack.score(col("image"))).select("path", "scores")
    scored.write_parquet(str(given.out))
    tell(ready=float(ready.read_text()), done=time.time())


if __name__ == "__main__":
    main()
