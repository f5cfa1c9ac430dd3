include("${CMAKE_CURRENT_LIST_DIR}/tinyseg-targets.cmake")
