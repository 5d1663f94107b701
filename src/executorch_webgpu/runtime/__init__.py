"""Programs, their methods and what those remember, in the shape of ``executorch.runtime``.

```python
program = Runtime.get().load_program("model.pte")
forward = program.load_method("forward")
(logits,) = forward.execute([tokens, input_pos])
```
"""

from ..gpu.trace import Trace, trace
from .method import Method, ProfileRow
from .options import LoadOptions
from .program import Program, Runtime, inspect_program
from .state import State

__all__ = ["LoadOptions", "Method", "ProfileRow", "Program", "Runtime", "State", "Trace", "inspect_program", "trace"]
