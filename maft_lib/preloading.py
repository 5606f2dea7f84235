"""First of what the workers' server imports: no garbage is collected until a worker starts.

Collecting looks at all objects again and again while libraries make them, and finds next to nothing: a
sixth of the time until the first worker. Knows nothing of what is imported next.
"""

import gc

gc.disable()
