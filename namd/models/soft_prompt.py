"""Soft prompts or adapters around a frozen language model: report texts become tokens C (Eq 7-8).

Finding and loading the language model is not its business.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from namd.config.seeding import generator
from namd.models.language_settings import LoRASettings, Readout, SoftPromptSettings


class ReportTokens:
    """Report texts as rows of token ids, through the tokenizer's own BOS, EOS and pad ids.

    A tokenizer without BOS starts with the prompts; one without pad pads with EOS, which no
    token before it sees. Tokenised texts are remembered: a cohort holds a few thousand.

    Raises ValueError if the tokenizer knows no end of sequence.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer knows no end-of-sequence token to read the report at")
        self.tokenizer = tokenizer
        self.start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.end = int(tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id
        self.pad = self.end if pad is None else int(pad)
        self._known: dict[str, list[int]] = {}

    def of(self, texts: Sequence[str], remember: bool = True) -> list[list[int]]:
        """Return the token ids of each text, EOS at the end, without BOS.

        `remember` False is for texts that do not come again.
        """
        if not remember:
            return [[*row, self.end] for row in self._tokenised(texts)]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            rows = self._tokenised(new)
            self._known |= {text: [*row, self.end] for text, row in zip(new, rows, strict=True)}
        return [self._known[text] for text in texts]

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def padded(
        self, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu"
    ) -> tuple[Int[Tensor, "B L"], Int[Tensor, " B"]]:
        """Return right-padded ids, as long as the longest row, and each row's length."""
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((len(rows), int(lengths.max())), self.pad)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row)] = torch.tensor(row)
        return ids.to(device), lengths.to(device)


class SoftPromptContext(nn.Module):
    """Reads reports through a frozen decoder-only language model behind m sets of n vectors.

    The sequence is BOS, prompts, text, EOS; the m sets run as one batch of m * B. Padding is on
    the right, so positions do not depend on the batch, and the state is read by index. Gradients
    flow through the frozen model to the prompts (or to the adapters that replace them).

    Attributes:
        model: The text model, frozen and always in eval mode.
        prompts: Parameter(m, n, D) in fp32; None where there are no prompts.
    """

    model: PreTrainedModel

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompts: SoftPromptSettings,
        lora: LoRASettings | None = None,
        readout: Readout = "eos",
        seed: int = 0,
    ) -> None:
        """Freeze the model, then add prompts or, where `lora.rank` is above 0, adapters.

        Args:
            model: A decoder-only transformers model without head.
            tokenizer: Its tokenizer.
            prompts: m and n; with adapters only m counts.
            lora: Adapters instead of prompts.
            readout: `eos`, or the last token of the text.
            seed: Of the vocabulary rows that prompts start from, and of the adapters.
        """
        super().__init__()
        self.tokens = ReportTokens(tokenizer)
        self.readout = readout
        self.num_sets = max(1, prompts.num_sets)
        self.adapted = lora is not None and lora.rank > 0
        self.model = model.requires_grad_(False).eval()
        if lora is not None and self.adapted:
            self.model = with_adapters(self.model, lora, seed).eval()
        self.prompts = None
        if prompts.num_sets and prompts.num_vectors and not self.adapted:
            rows = self._vocabulary_rows(prompts.num_sets * prompts.num_vectors, seed)
            self.prompts = nn.Parameter(rows.view(prompts.num_sets, prompts.num_vectors, -1))

    @property
    def width(self) -> int:
        """The width D of the states."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def train(self, mode: bool = True) -> "SoftPromptContext":
        """Set the mode of everything but the language model, which stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, reports: Sequence[str]) -> Float[Tensor, "B m D"]:
        """Return the final-norm state of each report behind each prompt set.

        m is 1 where there are no sets. Without prompts the m states of a report are equal, and
        are computed once.
        """
        ids, lengths = self.tokens.padded(self.tokens.of(reports), self._device)
        if self.prompts is None:
            with torch.set_grad_enabled(self.adapted and torch.is_grad_enabled()):
                states = self._read(ids, lengths, None)
            return states[:, None].expand(-1, self.num_sets, -1)
        num_sets, num_reports = len(self.prompts), len(reports)
        prefix = self.prompts.repeat_interleave(num_reports, dim=0)
        states = self._read(ids.repeat(num_sets, 1), lengths.repeat(num_sets), prefix)
        return states.view(num_sets, num_reports, -1).transpose(0, 1)

    def adapter_state(self) -> dict[str, Tensor]:
        """Return what was trained around the frozen model: prompts or adapters, by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `adapter_state` returned.

        Raises KeyError or RuntimeError if a name or a shape is not this context's.
        """
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(state[name])

    @property
    def _device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    def _read(
        self,
        ids: Int[Tensor, "R L"],
        lengths: Int[Tensor, " R"],
        prefix: Float[Tensor, "R n D"] | None,
    ) -> Float[Tensor, "R D"]:
        embed = self.model.get_input_embeddings()
        start = torch.tensor(self.tokens.start, dtype=ids.dtype, device=ids.device)
        parts = [embed(start.expand(len(ids), -1)), embed(ids)]
        if prefix is not None:
            parts.insert(1, prefix.to(parts[0].dtype))
        before = sum(part.shape[1] for part in parts[:-1])
        last = before + lengths - (1 if self.readout == "eos" else 2)
        if int(last.min()) < 0:
            raise ValueError("an empty report without BOS and prompts has no last text token")
        embedded = torch.cat(parts, dim=1)
        positions = torch.arange(embedded.shape[1], device=ids.device)
        mask = (positions < (before + lengths)[:, None]).long()
        states = self.model(
            inputs_embeds=embedded, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states[torch.arange(len(ids), device=ids.device), last]

    def _vocabulary_rows(self, count: int, seed: int) -> Float[Tensor, "count D"]:
        """Draw rows through the embedding module, which may scale them; special tokens left out."""
        embed = self.model.get_input_embeddings()
        special = set(self.tokens.tokenizer.all_special_ids)
        known = min(len(self.tokens.tokenizer), embed.weight.shape[0])
        words = [token for token in range(known) if token not in special]
        chosen = generator("soft-prompt", seed).choice(words, size=count, replace=True)
        with torch.no_grad():
            return embed(torch.from_numpy(chosen).to(self._device)).float()


def with_adapters(model: nn.Module, lora: LoRASettings, seed: int) -> nn.Module:
    """Return the model with low-rank adapters (peft), the only parameters that train.

    Raises ValueError if `target_modules` names no module of the model.
    """
    from peft import LoraConfig, get_peft_model

    from namd.models.initialisation import initialised_from

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules),
        lora_dropout=0.0,
        bias="none",
    )
    with initialised_from("lora", seed):
        return get_peft_model(model, config)
