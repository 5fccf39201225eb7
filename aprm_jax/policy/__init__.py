"""What the Generator and a solver share as policies: token batches, rewards, losses.

Everything here is a pure function on arrays [B, T]: B sequences of T tokens, of which
a mask says which the policy chose. Float32 throughout.
"""
