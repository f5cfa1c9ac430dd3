// The part of the module that step_bindings.cpp fills.
#pragma once

#include <nanobind/nanobind.h>

void bind_step(nanobind::module_& m);
