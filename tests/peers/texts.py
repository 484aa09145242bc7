"""The prompts: a RAG prompt of about 2,000 tokens in several orders, and chats to continue."""
import pathlib
import random

WARM_UP = "The ferry leaves at noon."
_WORDS = "table page index value file write lock query row cache store key".split()
_PASSAGES, _PASSAGE_TOKENS = 8, 250  # as in kvasir bench; each of the words is one token
# The English chats of the golden file: all are longer than 32 tokens, from where on some engines
# take other kernels.
_CHATS = ("chat-capital", "chat-sky", "chat-sort", "chat-mail", "chat-percent", "rag-wal", "rag-bridge")


def rag_prompt(order):
    """The same passages for every `order`, in an order and with a question of its own."""
    rng = random.Random(77)
    passages = [" ".join(rng.choices(_WORDS, k=_PASSAGE_TOKENS)) for _ in range(_PASSAGES)]
    turned = [passages[(3 * i + order) % _PASSAGES] for i in range(_PASSAGES)]
    return "\n\n".join(turned) + f"\n\nQuestion number {order}: which of these words comes first?"


def chats():
    """For each chat its token ids and those of the greedy answer of transformers in fp32."""
    golden = pathlib.Path(__file__).parents[1] / "golden" / "SmolLM2-135M-Instruct.Q4_1.txt"
    lines = golden.read_text().splitlines()
    for name in _CHATS:
        _, ids, _, greedy = lines[(at := lines.index(f"prompt {name}")):at + 4]
        yield ([int(word) for word in ids.split()[1:]],
               [int(word.split(":")[0]) for word in greedy.split()[1:]])  # token:lead of the second
