"""A random language model of a few thousand parameters, whose tokens are bytes."""

import pytest
import torch

END, TEMPLATE = (
    "<end>",
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[model] ",
)


def make(folder, *, context=64, template=None, seed=0, lowercase=False):
    """Write the model and its tokenizer to a folder, as `save_pretrained` does.

    Skips the test without the extra `lm`.
    """
    transformers = pytest.importorskip("transformers", reason="needs the extra lm")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    from rbpp.randomness import seeded

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)} | {END: len(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    fast.chat_template = template
    fast.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=context,
        initializer_range=0.6,
        bos_token_id=None,
        eos_token_id=vocabulary[END],
    )
    with seeded(seed):
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def one_by_one(folder, prompt, output, end=True):
    """log p(output | prompt), token after token, each in a pass of its own."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = tokenizer(prompt)["input_ids"] or [tokenizer.eos_token_id]
    tokens = tokenizer(output)["input_ids"] + [tokenizer.eos_token_id] * end
    steps = []
    with torch.no_grad():
        for token in tokens:
            logits = model(torch.tensor([before])).logits[0, -1].double()
            steps.append(logits)
            before = [*before, token]
    return torch.stack(steps), torch.tensor(tokens)
