"""`Seq2SeqGenerator`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


class Right:
    """Right; its methods are what mutants change."""

    def __init__(self, encoder, decoder, attention):
        self.encoder, self.decoder, self.attention = encoder, decoder, attention

    def feed(self, token, bos):
        return token

    def keep(self, state, new):
        return new

    def context(self, output):
        return output.squeeze(0)

    def choose(self, logits):
        return logits.argmax(-1)

    def ends(self, token, eos):
        return int(token) == eos

    def steps(self, most, source):
        return most

    def result(self, tokens, rows, bos, eos):
        return torch.stack(tokens), torch.cat(rows)

    def late(self, state, memory, weights):
        return weights

    def generate(self, source, bos, eos, max_new_tokens):
        memory, state = self.encoder(source)
        token, tokens, rows = torch.tensor(bos), [], []
        for _ in range(self.steps(max_new_tokens, source)):
            output, weights = self.attention(state.unsqueeze(0), memory, memory)
            logits, new = self.decoder(self.feed(token, torch.tensor(bos)), state, self.context(output))
            rows.append(self.late(new, memory, weights))
            state = self.keep(state, new)
            token = self.choose(logits)
            tokens.append(token)
            if self.ends(token, eos):
                break
        return self.result(tokens, rows, bos, eos)


@right("Seq2SeqGenerator")
class InMethods(Right):
    pass


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


@mutant("Seq2SeqGenerator", "nothing is fed back")
class AlwaysBos(Right):
    def feed(self, token, bos):
        return bos


@mutant("Seq2SeqGenerator", "the state is not carried on")
class SameState(Right):
    def keep(self, state, new):
        return state


@mutant("Seq2SeqGenerator", "the decoder does not look", only="tokens")
class Blind(Right):
    def context(self, output):
        return torch.zeros_like(output.squeeze(0))


@mutant("Seq2SeqGenerator", "the map is one step late", only="attention map")
class LateMap(Right):
    """Asks again with the new state, only when the map does not cost a call."""

    def late(self, state, memory, weights):
        scores = state.double() @ memory.double().mT
        return scores.softmax(-1).float().unsqueeze(0)


@mutant("Seq2SeqGenerator", "the least likely token is chosen")
class Least(Right):
    def choose(self, logits):
        return logits.argmin(-1)


@mutant("Seq2SeqGenerator", "does not stop at eos", only="eos")
class NeverStops(Right):
    def ends(self, token, eos):
        return False


@mutant("Seq2SeqGenerator", "eos is left out", only="eos")
class CutsEos(Right):
    def result(self, tokens, rows, bos, eos):
        kept = [n for n, token in enumerate(tokens) if int(token) != eos]
        return torch.stack([tokens[n] for n in kept]), torch.cat([rows[n] for n in kept])


@mutant("Seq2SeqGenerator", "eos 0 counts as none", only="eos")
class ZeroIsNoEos(Right):
    def ends(self, token, eos):
        return bool(eos) and int(token) == eos


@mutant("Seq2SeqGenerator", "bos is in the result")
class KeepsBos(Right):
    def result(self, tokens, rows, bos, eos):
        return torch.cat([torch.tensor([bos]), torch.stack(tokens)]), torch.cat(rows)


@mutant("Seq2SeqGenerator", "as long as the source")
class AsLongAsTheSource(Right):
    def steps(self, most, source):
        return len(source)

    def ends(self, token, eos):
        return False


@mutant("Seq2SeqGenerator", "one token too few")
class OneTooFew(Right):
    def steps(self, most, source):
        return most - 1


@mutant("Seq2SeqGenerator", "map is transposed", only="attention map")
class Transposed(Right):
    def result(self, tokens, rows, bos, eos):
        return torch.stack(tokens), torch.cat(rows).mT


@mutant("Seq2SeqGenerator", "one row for all tokens", only="attention map")
class LastRowOnly(Right):
    def result(self, tokens, rows, bos, eos):
        return torch.stack(tokens), rows[-1].expand(len(tokens), -1)


@mutant("Seq2SeqGenerator", "encodes at every step", only="cost")
class EncodesAgain(Right):
    def generate(self, source, bos, eos, max_new_tokens):
        once = self.encoder
        attend = self.attention
        self.attention = lambda query, key, value: attend(query, once(source)[0], once(source)[0])
        return super().generate(source, bos, eos, max_new_tokens)


@mutant("Seq2SeqGenerator", "asks more often than once a token", only="cost")
class LooksTwice(Right):
    def late(self, state, memory, weights):
        self.attention(state.unsqueeze(0), memory, memory)
        return weights


@mutant("Seq2SeqGenerator", only="length")
class TwoAtLeast(Right):
    def steps(self, most, source):
        return max(2, most)


@mutant("Seq2SeqGenerator", "tokens are no int64 vector")
class AMatrix(Right):
    def result(self, tokens, rows, bos, eos):
        return torch.stack(tokens)[None], torch.cat(rows)
