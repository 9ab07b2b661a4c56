"""A naive version of the paper's algorithm: the reference of all ratios in these benchmarks.

It uses the weights of an `AMERModel` and gives the same vectors, loss and gradients (tests/benchmarks). Like the
authors' research code, it does not save work in five places:

- each query vector takes a full pass over the whole sequence so far, without a KV cache;
- each pass is one of a causal language model: it keeps all hidden states and computes the vocabulary's logits;
- the embeddings of the tokens are `hidden_states[0]` of one more such pass;
- questions are encoded one at a time, and share no prefix;
- the logits over all candidates are in memory at once, and every row is matched by itself, after its own transfer.

It is faster than that code in two places: no row is padded to 257 tokens, and the frozen weights may be bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import linear, normalize
from transformers.modeling_outputs import BaseModelOutputWithPast

from modeling_amer import AMERModel


class Reference:
    """A naive AMER for questions as text.

    Args:
        model: The model whose backbone and projections are used, not copied. Like the model, the reference feeds
            predictions back without their gradient in training.
    """

    def __init__(self, model: AMERModel) -> None:
        self.model = model

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        prefix_ids: torch.Tensor | None = None,
        num_query_vectors: int | None = None,
    ) -> torch.Tensor:
        """Emit m query vectors for each question, and feed every prediction back.

        Args:
            input_ids: `(batch, length)` token ids.
            attention_mask: `(batch, length)`, 0 on padding.
            prefix_ids: `(1, prefix)` token ids that come before every row.
            num_query_vectors: m. Default: that of the configuration.

        Returns:
            `(batch, m, dim)`, unit length.
        """
        model = self.model
        if prefix_ids is not None:
            prefix_ids = prefix_ids.expand(len(input_ids), -1)
            input_ids = torch.cat([prefix_ids, input_ids], dim=1)
            attention_mask = torch.cat([torch.ones_like(prefix_ids), attention_mask], dim=1)
        inputs, mask, outputs = self.embed(input_ids, attention_mask), attention_mask, []
        while len(outputs) < (num_query_vectors or model.config.num_query_vectors):
            hidden = self.read(inputs, mask).last_hidden_state[:, -1]
            outputs.append(normalize(model.output_projection(hidden / model.scale), dim=-1))
            vector = model.input_projection(outputs[-1].detach() if model.training else outputs[-1])
            inputs = torch.cat([inputs, vector.to(inputs.dtype)[:, None]], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return torch.stack(outputs, dim=1)

    @torch.no_grad()
    def encode_query(self, texts: Sequence[str], num_query_vectors: int | None = None) -> torch.Tensor:
        """Encode the questions one after another: query vectors `(n, m, dim)`."""
        encoded = []
        for text in texts:
            question = {name: ids.to(self.model.device) for name, ids in self.model.tokenize([text]).items()}
            encoded.append(self(**question, num_query_vectors=num_query_vectors).cpu())
        return torch.cat(encoded)

    def embed(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embed the tokens by a pass of the whole language model: `(batch, length, hidden)`."""
        return self.read(self.model.get_input_embeddings()(input_ids), mask).hidden_states[0]

    def read(self, inputs: torch.Tensor, mask: torch.Tensor) -> BaseModelOutputWithPast:
        """One pass of the causal language model; it computes the logits, though nothing uses them."""
        output = self.model.backbone(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
            use_cache=False,
            output_hidden_states=True,
        )
        self.lm_head(output.last_hidden_state)
        return output

    def lm_head(self, hidden: torch.Tensor) -> torch.Tensor:
        """The vocabulary's logits `(batch, length, vocabulary)`; the head is tied to the embeddings."""
        return linear(hidden, self.model.get_input_embeddings().weight)


def info_nce(
    query_embeddings: torch.Tensor,
    candidates: torch.Tensor,
    target_index: torch.Tensor,
    target_mask: torch.Tensor,
    temperature: float = 0.05,
) -> torch.Tensor:
    """InfoNCE of matched pairs (paper §4.1, Eq. 1 and 2), with the log-probabilities of all candidates in memory.

    Args:
        query_embeddings: `(batch, m, dim)` unit vectors.
        candidates: `(n, dim)` unit vectors.
        target_index: `(batch, m)` int64, the targets of each row as rows of `candidates`.
        target_mask: `(batch, m)` bool, True for real targets, which come first.
        temperature: tau of Eq. 1.

    Returns:
        The mean over all matched pairs, a scalar.
    """
    log_probabilities = (query_embeddings @ candidates.T / temperature).log_softmax(dim=-1)
    own = log_probabilities.gather(2, target_index[:, None].expand(-1, target_index.shape[1], -1))
    assignment = match_rows(-own, target_mask)
    return -own.gather(2, assignment[:, :, None]).squeeze(2)[target_mask].mean()


def match_rows(costs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The assignment of least cost of each row, `(batch, m)`, by scipy, with one transfer per row.

    Args:
        costs: `(batch, m, m)`, cost of assigning target j to query vector i.
        mask: `(batch, m)` bool, True for real targets, which come first.
    """
    assignment = torch.arange(costs.shape[1], device=costs.device).repeat(len(costs), 1)
    for row in range(len(costs)):
        size = int(mask[row].sum())
        _, targets = linear_sum_assignment(costs[row, :size, :size].detach().float().cpu().numpy())
        assignment[row, :size] = torch.from_numpy(targets).to(costs.device)
    return assignment
