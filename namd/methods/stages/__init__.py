"""Bodies of stages, shared by methods. A body reads its context and writes its outputs."""
