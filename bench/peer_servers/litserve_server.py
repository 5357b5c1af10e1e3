"""LitServe before ``transformers``: requests that come within 50 ms are answered as one batch."""

# No postponed annotations here: the package reads the one of decode_request to find the body.

import os
from typing import Any

import litserve

from bench.peer_servers.generation import Generator

BATCH_WAIT_S = 0.05
TIMEOUT_S = 900


class Chat(litserve.LitAPI):  # type: ignore[misc]  # the package has no types
    """One worker with dynamic batching."""

    def setup(self, device: str) -> None:
        """Load the model in the worker's process."""
        del device
        self.generator: Generator = Generator()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the body as it is."""
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the requests as a list: their tensors are made together."""
        return inputs

    def predict(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self.generator.answers(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Hand out the answers in order."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Send the answer as it is."""
        return output


if __name__ == "__main__":
    chat = Chat(
        max_batch_size=int(os.environ["BATCH"]),
        batch_timeout=BATCH_WAIT_S,
        api_path="/v1/chat/completions",
    )
    server = litserve.LitServer(chat, accelerator="cpu", workers_per_device=1, timeout=TIMEOUT_S)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        generate_client_file=False,
        num_api_servers=1,
    )
