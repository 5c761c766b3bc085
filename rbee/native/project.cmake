# Read at the end of llama-cpp-python's project(); what it defers runs once the targets of that project are there.
set(RBEE_NATIVE_DIR "${CMAKE_CURRENT_LIST_DIR}")
cmake_language(DEFER CALL include "${RBEE_NATIVE_DIR}/targets.cmake")
