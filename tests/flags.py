"""Flags of XLA for the tests, whose time is mostly compiling.

Two thirds of the compiler's time go without LLVM's optimizations and without MLIR's emitters of fused loops.
"""

from importlib import metadata

QUICK_COMPILING = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

# From 0.11 on these emitters are the only ones, and XLA ends the process at a flag that it does not know.
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    QUICK_COMPILING += " --xla_cpu_use_fusion_emitters=false"
