//! System tests live beside this file in `tests/`.
