# Builds the chat library beside libllama, and installs both it and llama.cpp's own, which it stands on.
add_library(rbee_chat SHARED "${CMAKE_CURRENT_LIST_DIR}/chat.cpp")
target_link_libraries(rbee_chat PRIVATE llama-common)
target_compile_features(rbee_chat PRIVATE cxx_std_17)
set_target_properties(rbee_chat PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
llama_cpp_python_install_target(llama-common)
llama_cpp_python_install_target(rbee_chat)
# The templates of many models, for tests of the above.
install(DIRECTORY "${CMAKE_SOURCE_DIR}/vendor/llama.cpp/models/templates/"
        DESTINATION "${SKBUILD_PLATLIB_DIR}/llama_cpp/chat_templates"
        FILES_MATCHING PATTERN "*.jinja")
