// The part of the module that grid.cpp fills.
#pragma once

#include <nanobind/nanobind.h>

void bind_grid(nanobind::module_& m);
