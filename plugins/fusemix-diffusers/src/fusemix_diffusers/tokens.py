"""`TokensGenerator`: Stable Diffusion or SDXL, conditioned by the tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_diffusers.piped import PipedGenerator


class TokensGenerator(PipedGenerator):
    """The condition is what the pipeline makes of a prompt: the view `tokens` of its own text
    encoder. An embedding has no tokens, so fusemix takes those of the nearest of given captions.

    The condition "nothing" is the pipeline's own: the empty prompt, or zeros for most SDXL.
    """

    def rows(self, condition: Tensor | Padded, what: str) -> Tensor:
        """float `[n, T, d]` on the device. Raises ConfigError for another form, width or length."""
        values = condition
        if isinstance(condition, Padded):
            values = condition.values if condition.mask.all() else condition.values[:, :0]
        assert isinstance(values, Tensor)
        wanted = self.positions
        if values.ndim != 3 or values.shape[1] != wanted:
            raise ConfigError(
                f"'{self.spec.name}' takes {wanted} tokens per image as its {what}; these are "
                f"{list(values.shape)}.",
                f"They are the view 'tokens' of {self.spec.space}.",
            )
        self.check(values)
        return values.to(self.device, self.pipeline.unet.dtype)

    @property
    def pooled_width(self) -> int:
        """Of the vector that SDXL takes beside the tokens: in the last position. 0: none."""
        second = getattr(self.pipeline, "text_encoder_2", None)
        return second.config.projection_dim if second is not None else 0

    @property
    def positions(self) -> int:
        """How many rows a condition has."""
        tokenizer = self.pipeline.tokenizer or self.pipeline.tokenizer_2
        return tokenizer.model_max_length + bool(self.pooled_width)

    def null(self, count: int) -> Tensor:
        """The pipeline's own condition "nothing", `[count, T, d]`."""
        found = self._empty(count)
        tokens = found["negative_prompt_embeds"]
        if not self.pooled_width:
            return tokens
        more = tokens.shape[2] - self.pooled_width
        last = pad(found["negative_pooled_prompt_embeds"], (0, more))
        return torch.cat([tokens, last[:, None]], dim=1)

    def draw(
        self,
        condition: Tensor,
        negative: Tensor | None,
        seeds: list[int],
        settings: Mapping[str, Any],
    ) -> list[Image.Image]:
        inputs = self._inputs(condition, "")
        if negative is not None:
            inputs |= self._inputs(negative, "negative_")
        elif settings["guidance"] > 1:
            inputs |= self._empty(len(seeds))
        return self.run(seeds, settings, **inputs)

    def _inputs(self, tokens: Tensor, kind: str) -> dict[str, Tensor]:
        if not (width := self.pooled_width):
            return {f"{kind}prompt_embeds": tokens}
        return {
            f"{kind}prompt_embeds": tokens[:, :-1],
            f"{kind}pooled_prompt_embeds": tokens[:, -1, :width],
        }

    def _empty(self, count: int) -> dict[str, Tensor]:
        """The pipeline's own null condition, `count` times."""
        found = self.pipeline.encode_prompt(
            prompt="",
            device=self.device,
            num_images_per_prompt=count,
            do_classifier_free_guidance=True,
        )
        if not self.pooled_width:
            return {"negative_prompt_embeds": found[1]}
        return {
            "negative_prompt_embeds": found[1],
            "negative_pooled_prompt_embeds": found[3],
        }
