"""Text encoders of transformers, with masks; encoder-decoders in their two halves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .model import FirstOutput, Prepared, noise, randomized, tokens, zoo

VOCABULARY = 97


class Masked(nn.Module):
    """A text encoder of transformers: tokens and a mask of those that are text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, attention_mask=mask, return_dict=False)[0]


def _sentence(
    batch: int, length: int, text: tuple[int, ...], below: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(batch, length, dtype=torch.long)
    for row, count in enumerate(text):
        mask[row, :count] = 1
    return tokens(batch, length, below=below, seed=seed), mask


def sentences(module: nn.Module, longest: int, below: int = VOCABULARY, batch: bool = False) -> Prepared:
    """Batches with padding, shorter and longer from call to call."""
    calls = [
        _sentence(2, longest, (longest, longest - 5), below, 0),
        _sentence(1, 5, (4,), below, 1) if batch else _sentence(2, 5, (5, 3), below, 1),
        _sentence(2, longest // 2 + 1, (longest // 2, 3), below, 2),
    ]
    dims: dict[int, Any] = {1: Dim("length", min=3, max=longest)}
    if batch:
        dims[0] = Dim("batch", min=1, max=2)
    return Prepared(randomized(module), calls, (dims, dims))


@zoo("bert")
def bert(full: bool) -> Prepared:
    from transformers import BertConfig, BertModel

    if full:
        return sentences(Masked(BertModel(BertConfig(), add_pooling_layer=False)), 128, 30000)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
    )
    return sentences(Masked(BertModel(config)), 23)


@zoo("bert_eager")
def bert_eager(full: bool) -> Prepared:
    """Attention written as products and a softmax, and a pooler."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    return sentences(Masked(BertForSequenceClassification(config)), 23)


@zoo("roberta")
def roberta(full: bool) -> Prepared:
    """Positions are counted from the tokens that are not padding."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
    )
    return sentences(Masked(RobertaModel(config, add_pooling_layer=False)), 19)


@zoo("distilbert")
def distilbert(full: bool) -> Prepared:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=1, n_heads=4, hidden_dim=56, max_position_embeddings=64
    )
    return sentences(Masked(DistilBertModel(config)), 19, batch=True)


@zoo("albert")
def albert(full: bool) -> Prepared:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
    )
    return sentences(Masked(AlbertModel(config, add_pooling_layer=False)), 19)


@zoo("mobilebert")
def mobilebert(full: bool) -> Prepared:
    from transformers import MobileBertConfig, MobileBertModel

    config = MobileBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        embedding_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=40,
        intra_bottleneck_size=16,
        max_position_embeddings=64,
    )
    return sentences(Masked(MobileBertModel(config, add_pooling_layer=False)), 19)


@zoo("mpnet")
def mpnet(full: bool) -> Prepared:
    """A bias of relative positions, by buckets."""
    from transformers import MPNetConfig, MPNetModel

    config = MPNetConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
    )
    return sentences(Masked(MPNetModel(config, add_pooling_layer=False)), 19)


# In float16 the exporter makes -inf of the mask's least float32, so a row of padding alone is NaN.
@zoo("deberta", ("vulkan", "partial", "portable"))
def deberta(full: bool) -> Prepared:
    """Attention between contents and positions, gathered by distances."""
    from transformers import DebertaV2Config, DebertaV2Model

    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=56,
        max_position_embeddings=64,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
    )
    return sentences(Masked(DebertaV2Model(config)), 13)


@zoo("modernbert")
def modernbert(full: bool) -> Prepared:
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=64,
        global_attn_every_n_layers=2,
        local_attention=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    return sentences(Masked(ModernBertModel(config)), 19)


@zoo("clip_text")
def clip_text(full: bool) -> Prepared:
    """A causal mask beside that of the padding, and the state at the token that ends the text."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=24,
        eos_token_id=96,
        bos_token_id=95,
    )

    class Pooled(Masked):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, attention_mask=mask, return_dict=False)[1]

    return sentences(Pooled(CLIPTextModel(config)), 23)


def _t5() -> Any:
    from transformers import T5Config, T5Model

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=56,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        use_cache=False,
    )
    return T5Model(config)


@zoo("t5_encoder")
def t5_encoder(full: bool) -> Prepared:
    """A bias of relative positions in logarithmic buckets, and RMS norms."""
    return sentences(Masked(_t5().encoder), 19)


class Decoder(nn.Module):
    """A decoder of transformers over an encoder's states and their mask."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.decoder(
            input_ids=ids,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
            return_dict=False,
        )[0]


def decoding(decoder: nn.Module, width: int) -> Prepared:
    """Targets and sources of lengths that change apart from each other."""
    calls = []
    for seed, (target, source) in enumerate(((11, 17), (2, 17), (7, 4))):
        _, mask = _sentence(1, source, (source - 1,), VOCABULARY, seed)
        calls.append((tokens(1, target, below=VOCABULARY, seed=seed), noise(1, source, width, seed=seed), mask))
    target, source = Dim("target", min=2, max=11), Dim("source", min=2, max=17)
    return Prepared(randomized(Decoder(decoder)), calls, ({1: target}, {1: source}, {1: source}))


@zoo("t5_decoder")
def t5_decoder(full: bool) -> Prepared:
    return decoding(_t5().decoder, 32)


@zoo("bart_decoder")
def bart_decoder(full: bool) -> Prepared:
    from transformers import BartConfig, BartModel

    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        max_position_embeddings=32,
    )
    return decoding(BartModel(config).decoder, 32)


class Translator(nn.Module):
    """torch's own transformer, with masks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.body = nn.Transformer(32, 4, 1, 1, 48, dropout=0.0, batch_first=True, activation="gelu")

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        padding = source == 0
        return self.body(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )


@zoo("torch_transformer")
def torch_transformer(full: bool) -> Prepared:
    def call(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        source = tokens(2, 13, below=VOCABULARY, seed=seed)
        source[1, 9:] = 0
        return source, tokens(2, 7, below=VOCABULARY, seed=seed + 1)

    return Prepared(randomized(Translator()), [call(0), call(5)])


@zoo("gpt2")
def gpt2(full: bool) -> Prepared:
    """A language model without a cache: logits of every position."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, use_cache=False)
    lengths = (21, 3, 12)
    calls = [(tokens(1, n, below=VOCABULARY, seed=n),) for n in lengths]
    return Prepared(randomized(FirstOutput(GPT2LMHeadModel(config))), calls, (({1: Dim("length", min=2, max=21)},),))
