"""Hands attention millions of queries and keys, the encoder a book, the decoder matrices.

Of two thin tensors a product is made that no memory holds; of two without elements, too.
Must hold: what is too much is refused, at once; then nothing more is answered in that call, and all else goes on.
"""
# of: text_generation
# cell: helper
@Seq2SeqGenerator@
Honest = Seq2SeqGenerator
# cell: solution Seq2SeqGenerator
import torch

THIN = [torch.ones(2_000, width) for width in range(10)] + [torch.ones(1_000_000, 0), torch.ones(8, 30_000_000, 0)]


class Seq2SeqGenerator(Honest):
    def generate(self, source, *rest):
        memory, state = self.encoder(source)
        burdens = [(self.attention, (thin, thin, thin)) for thin in THIN]
        burdens += [(self.attention, (memory, thin, thin)) for thin in THIN]
        burdens += [(self.decoder, (torch.tensor(0), thin, thin)) for thin in THIN]
        burdens += [(self.decoder, (torch.tensor(n), state, state)) for n in (-1, 2**62, float("nan"))]
        burdens += [(self.encoder, (n,)) for n in (torch.zeros(4_000_000).byte(), torch.zeros(64, 60_000).long(), -source, 5)]
        for part, args in burdens:
            try:
                part(*args)
            except Exception:
                pass
        return super().generate(source, *rest)
# cell: plain Seq2SeqGenerator
class Seq2SeqGenerator(Honest):
    def generate(self, source, *rest):
        self.encoder(source)
        return super().generate(source, *rest)
