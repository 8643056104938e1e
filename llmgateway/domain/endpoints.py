"""The endpoints of `/v1` that programs POST to, as one table: the gateway relays what stands here and nothing
else."""

from typing import Literal

from msgspec import Struct

JSON, SSE = b"application/json", b"text/event-stream"


class Endpoint(Struct, frozen=True):
    """`form`: where the model's name stands. `has_tokens`: it is paid by the token, so usage is counted where
    the upstream says none. `generates`: its answer is made of tokens, too. `counts_stream`: a stream takes
    `stream_options.include_usage`. `says_done`: a complete stream ends with `data: [DONE]`; `last_events`:
    or with an event of one of these types. `media`: the types of a good answer; None: any but a web page."""

    path: str
    summary: str
    form: Literal["json", "multipart"] = "json"
    has_tokens: bool = False
    generates: bool = False
    counts_stream: bool = False
    says_done: bool = False
    last_events: tuple[str, ...] = ()
    media: tuple[bytes, ...] | None = (JSON, SSE)

    def takes(self, content_type: bytes) -> bool:
        """Whether an answer of this type can be one of this endpoint's."""
        if content_type == JSON:
            return True
        kind = content_type.partition(b";")[0].strip().lower()
        return kind in self.media if self.media is not None else kind not in (b"", b"text/html")


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            "/v1/chat/completions",
            "Chat, whole or streamed",
            has_tokens=True,
            generates=True,
            counts_stream=True,
            says_done=True,
        ),
        Endpoint(
            "/v1/completions",
            "Text completion, whole or streamed",
            has_tokens=True,
            generates=True,
            counts_stream=True,
            says_done=True,
        ),
        Endpoint("/v1/embeddings", "Embedding vectors", has_tokens=True),
        Endpoint(
            "/v1/responses",
            "Responses, whole or streamed",
            has_tokens=True,
            generates=True,
            last_events=("response.completed", "response.incomplete", "response.failed", "error"),
        ),
        Endpoint("/v1/moderations", "Moderation"),
        Endpoint("/v1/rerank", "Documents ranked by a query"),
        Endpoint("/v1/score", "Similarity scores"),
        Endpoint("/v1/audio/speech", "Speech from text", media=None),
        Endpoint("/v1/audio/transcriptions", "Text from speech", form="multipart", media=None),
        Endpoint("/v1/audio/translations", "English text from speech", form="multipart", media=None),
        Endpoint("/v1/images/generations", "Images from text"),
        Endpoint("/v1/images/edits", "Images from images and text", form="multipart"),
        Endpoint("/v1/images/variations", "Images from images", form="multipart"),
    )
}
