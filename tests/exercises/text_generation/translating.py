"""`Seq2SeqGenerator`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


@right("Seq2SeqGenerator")
class Right:
    """Right; its methods are what mutants change."""

    def __init__(self, encoder, decoder, attention):
        self.encoder, self.decoder, self.attention = encoder, decoder, attention

    def read(self, source):
        return self.encoder(source)

    def ends(self, tokens, eos):
        return int(tokens[-1]) == eos

    def look(self, state, memory):
        return self.attention(state.unsqueeze(0), memory, memory)

    def result(self, tokens, rows):
        return torch.stack(tokens), torch.cat(rows)

    def generate(self, source, bos, eos, max_new_tokens):
        memory, state = self.read(source)
        token, tokens, rows = torch.tensor(bos), [], []
        for _ in range(max_new_tokens):
            output, weights = self.look(state, memory)
            logits, state = self.decoder(token, state, output.squeeze(0))
            rows.append(weights)
            token = logits.argmax(-1)
            tokens.append(token)
            if self.ends(tokens, eos):
                break
        return self.result(tokens, rows)


@right("Seq2SeqGenerator")
class FillsTensors:
    def __init__(self, encoder, decoder, attention):
        self.parts = encoder, decoder, attention

    def generate(self, source, bos, eos, max_new_tokens):
        encode, decode, attend = self.parts
        memory, state = encode(source)
        tokens = torch.full((max_new_tokens + 1,), bos)
        looked = torch.zeros(max_new_tokens, len(source))
        for t in range(max_new_tokens):
            context, looked[t : t + 1] = attend(query=state[None, :], key=memory, value=memory)
            logits, state = decode(tokens[t], state, context[0])
            tokens[t + 1] = torch.argmax(logits)
            if tokens[t + 1] == eos:
                return tokens[1 : t + 2], looked[: t + 1]
        return tokens[1:], looked


@right("Seq2SeqGenerator")
class StepsOnItsOwn:
    def __init__(self, encoder, decoder, attention):
        self.encoder = encoder
        self.decoder = decoder
        self.attention = attention

    def step(self, token, state, memory):
        (context,), (weights,) = self.attention(state.view(1, -1), memory, memory)
        logits, state = self.decoder(torch.tensor(token), state, context)
        return int(logits.max(0).indices), state, weights

    def generate(self, source, bos, eos, max_new_tokens):
        memory, state = self.encoder(source)
        text, looked = [bos], []
        while len(text) <= max_new_tokens and (len(text) == 1 or text[-1] != eos):
            token, state, weights = self.step(text[-1], state, memory)
            text.append(token)
            looked.append(weights)
        return torch.tensor(text[1:]), torch.stack(looked)


def variant(name, named=None, only=None, **methods):
    mutant("Seq2SeqGenerator", named, only=only)(type(name, (Right,), methods))


def remembers(self, source):
    self.known = self.__dict__.get("known") or self.encoder(source)
    return self.known


def remembers_by_source(self, source):
    known, key = self.__dict__.setdefault("known", {}), tuple(source.tolist())
    if key not in known:
        known[key] = self.encoder(source)
    return known[key]


def encodes_again(self, state, memory):
    again = self.encoder(self.source)[0]
    return self.attention(state.unsqueeze(0), again, again)


def keeps_source(self, source):
    self.source = source
    return self.encoder(source)


def looks_twice(self, state, memory):
    Right.look(self, state, memory)
    return Right.look(self, state, memory)


def squeezes(self, state, memory):
    output, weights = Right.look(self, state, memory)
    return output, weights.squeeze()


def writes(self, source):
    memory = self.encoder(source)
    source.zero_()
    return memory


variant("ReadsOnce", read=remembers)
variant("ReadsASentenceOnce", read=remembers_by_source)
variant("EncodesAgain", "encodes at every step", "cost", read=keeps_source, look=encodes_again)
variant("LooksTwice", "asks more often than once a token", "cost", look=looks_twice)
variant("GoesOnAfterAFirstEos", ends=lambda self, tokens, eos: len(tokens) > 1 and int(tokens[-1]) == eos)
variant("LosesAnAxis", look=squeezes)
variant("Writes", "changes its inputs in place", read=writes)
variant(
    "AMatrix",
    "tokens are no int64 vector",
    result=lambda self, tokens, rows: (torch.stack(tokens)[None], torch.cat(rows)),
)
