"""Whether an engine computes the model: the tokens it puts next, beside those of transformers.

Engines quantise activations and order sums in their own ways, so greedy texts part sooner or later
where two candidates lie close together, and say little from there on. Hence every engine continues
the reference's own text by one token, at 16 places in each of 7 chats. Measured shares of equal
tokens: Kvasir, llama.cpp and repaired ik_llama.cpp 98-100 %; OpenVINO, which rounds the minima of
Q4_1 when it loads the file, 80 %, which is also what every engine has on the weights requantised to
Q4_0; ik_llama.cpp as shipped 59 %: it mostly ends its answers at once, but is led back here.
"""
import texts
from process import Failed

PLACES = 16
ENOUGH = 0.7


def _places():
    """(token ids, id of the next token), a chat's places one after the other."""
    return [(ids + greedy[:i], greedy[i]) for ids, greedy in texts.chats() for i in range(PLACES)]


def check(engines, ours, model, path, skip):
    """By engine name: whether its output is valid; left out where it does not run.

    `ours` is Kvasir, which turns the reference's ids into text. `skip` is called with an engine's
    name and the reason when it does not run.
    """
    places = _places()
    right = [text.strip() for text in ours.texts_of(path, [token for _, token in places])]
    valid = {}
    for engine in engines:
        try:
            found = engine.greedy(path, [ids for ids, _ in places], 1)
        except Failed as failure:
            skip(engine.name, str(failure))
            continue
        equal = [a.strip() == b for a, b in zip(found, right)]
        whole = sum(all(equal[i:i + PLACES]) for i in range(0, len(equal), PLACES))
        share = sum(equal) / len(equal)
        valid[engine.name] = share >= ENOUGH
        print(f"output on {model}: {engine.name} puts {100 * share:.0f} % of the tokens that the "
              f"reference puts, {whole} of {len(equal) // PLACES} texts all alike"
              f"{'' if valid[engine.name] else ': wrong'}", flush=True)
    return valid
