# What reads artifacts. It needs nothing but the C++ library, so fuzz targets can have it alone:
# kad_add_reader(NAME).

set(kad_reader_sources
    artifact.cpp artifact_layout.cpp fields.cpp folder.cpp inspection.cpp json.cpp json_parser.cpp manifest.cpp
    manifest_entries.cpp manifest_methods.cpp manifest_windows.cpp rules.cpp sha256.cpp tensors.cpp)
if(kad_x86_levels)
  list(APPEND kad_reader_sources sha256_x86.cpp)
endif()
list(TRANSFORM kad_reader_sources PREPEND "${kad_source_dir}/runtime/")
function(kad_add_reader name)
  add_library(${name} STATIC ${kad_reader_sources} "${kad_source_dir}/base/abi.cpp"
              "${kad_source_dir}/graph/graph_check.cpp")
  kad_set_instructions(${name})
  kad_set_unity_groups(${name})
  target_compile_features(${name} PUBLIC cxx_std_17)
  target_compile_definitions(${name} PUBLIC
    KAD_VERSION_STRING="${PROJECT_VERSION}" KAD_X86_LEVELS=${kad_x86_levels})
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}/kad_sdk/include"
                             "${kad_source_dir}")
endfunction()
