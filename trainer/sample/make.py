"""Make the built-in checkpoint anew: ``python -m trainer.sample.make``.

A DistilBERT of random weights, with a WordPiece vocabulary learnt from the built-in training reviews. It knows no
language: it lets all three commands run where no download is possible, and its accuracy says nothing about LoRA.
"""

from __future__ import annotations

import torch
from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing
from transformers import DistilBertConfig, DistilBertModel, DistilBertTokenizerFast, set_seed

from trainer.data import read_table
from trainer.sources import SAMPLE_MODEL, SAMPLE_REVIEWS

VOCABULARY = 4096
MAX_POSITIONS = 512


def make() -> None:
    """Write configuration, weights (fp16, to be small) and tokenizer to the sample's folder."""
    columns = read_table(SAMPLE_REVIEWS).columns
    rows = zip(columns["text"], columns["split"], strict=True)
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator((text for text, split in rows if split == "train"), VOCABULARY)
    wordpiece.post_processor = BertProcessing(
        *((token, wordpiece.token_to_id(token)) for token in ("[SEP]", "[CLS]")),
    )
    tokenizer = DistilBertTokenizerFast(tokenizer_object=wordpiece._tokenizer, model_max_length=MAX_POSITIONS)
    set_seed(0)
    # Weights five times as large as usual: with small ones every text comes out the same where it is classified.
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=128,
        hidden_dim=512,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.1,
    )
    DistilBertModel(config).to(torch.float16).save_pretrained(SAMPLE_MODEL)
    tokenizer.save_pretrained(SAMPLE_MODEL)


if __name__ == "__main__":
    make()
