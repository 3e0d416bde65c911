"""Flags of XLA for the tests, whose time is mostly compiling: half of it goes with LLVM's optimizations."""

QUICK_COMPILING = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
