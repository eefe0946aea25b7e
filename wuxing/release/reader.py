"""The programs that read a release besides ours: transformers the directory, llama.cpp the GGUF file.

A reader computes with the exported files only; `parity.py` compares it with the trained model.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wuxing.core.error import WuxingError

LIKELIEST = 512
"""Tokens of each distribution that llama.cpp is asked for; all of them would be some 100 MB of JSON."""
Messages = Sequence[Mapping[str, str]]


class TransformersReader:
    """`transformers` over `model/`, fp32, with remote code off."""

    name = "transformers"

    def __init__(self, directory: Path):
        import transformers

        bar = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                str(directory), dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            ).eval()
        finally:
            if bar:
                transformers.utils.logging.enable_progress_bar()

    def ids(self, text: str) -> list[int]:
        """Ids of plain text: what looks like a special token is spelled out."""
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def render(self, messages: Messages) -> str:
        """The conversation as its chat template writes it, with the prompt for an answer."""
        return str(
            self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        )

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """Logits (T, V) of each next token."""
        return self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()

    @torch.inference_mode()
    def greedy(self, ids: list[int], tokens: int, stop: Sequence[int]) -> list[int]:
        """The likeliest tokens one by one, until a stop token (included)."""
        prompt = torch.tensor([ids])
        out = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=list(stop),
            pad_token_id=stop[0],
        )
        return out[0, len(ids) :].tolist()


class LlamaReader:
    """llama.cpp over a GGUF file, inside this process, all in fp32 where the file is.

    Use it in a `with` block.  Its tokenizer is only reachable over the server's own port on 127.0.0.1, which asks for
    a key made at random.
    """

    name = "llama.cpp"

    def __init__(self, path: Path, threads: int = 1):
        if not has_llama():
            raise WuxingError("xllamacpp, which reads GGUF files, is not installed", REMEDY)
        import httpx
        import xllamacpp

        key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.n_parallel, params.n_threads_http, params.verbosity = 1, 1, -1
        params.warmup = params.ui = params.endpoint_slots = params.fit_params = False
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.use_jinja, params.api_keys, params.cache_ram_mib = True, [key], 0
        self._server = xllamacpp.Server(params)
        self._http = httpx.Client(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=120,
        )
        self._letter = self.ids("a")[0]

    def __enter__(self) -> LlamaReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        del self._server

    def ids(self, text: str) -> list[int]:
        """Ids of plain text: what looks like a special token is spelled out."""
        asked = {"content": text, "add_special": False, "parse_special": False}
        return list(self._post("/tokenize", asked)["tokens"])

    def render(self, messages: Messages) -> str:
        """The conversation as its chat template writes it, with the prompt for an answer."""
        return str(self._post("/apply-template", {"messages": [dict(message) for message in messages]})["prompt"])

    def likeliest(self, ids: list[int]) -> dict[int, float]:
        """Log-probabilities of the likeliest next tokens, of the model itself: no sampler touches them."""
        # The server leaves the probabilities out when it draws an end or half a character, so it is made to draw "a".
        asked = {"n_probs": LIKELIEST, "logit_bias": [[self._letter, 1e4]]}
        step = self._complete(ids, 1, asked)["completion_probabilities"][0]
        return {one["id"]: one["logprob"] for one in step["top_logprobs"]}

    def greedy(self, ids: list[int], tokens: int, stop: Sequence[int]) -> list[int]:
        """The likeliest tokens one by one, until a stop token (included)."""
        answer = self._complete(ids, tokens, {})
        found = list(answer["tokens"])
        if answer["stop_type"] == "eos":
            likeliest = self.likeliest(ids + found)
            found.append(max(likeliest, key=lambda token: likeliest[token]))
        ends = [place for place, token in enumerate(found) if token in stop]
        return found[: ends[0] + 1] if ends else found

    def _complete(self, ids: list[int], tokens: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Greedy by `top_k` 1: with a temperature of 0 the server leaves the probabilities out."""
        asked = {
            "prompt": ids,
            "n_predict": tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": False,
            "return_tokens": True,
            "response_fields": ["completion_probabilities", "tokens", "stop_type"],
        }
        return self._post("/completion", asked | settings)

    def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=asked)
        if answer.status_code != 200:
            raise WuxingError(f"llama.cpp answered {answer.status_code} to {path}: {answer.text[:200]}")
        return dict(answer.json())


REMEDY = "Install it with: pip install wuxing[fast-cpu]"


def has_llama() -> bool:
    """Whether llama.cpp is installed."""
    return find_spec("xllamacpp") is not None
