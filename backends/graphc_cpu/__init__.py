"""The CPU back end: kernel specs to LLVM IR to machine code. `graphc_cpu.backend.backend` is what `graphc.backend.find("cpu")` gives."""
