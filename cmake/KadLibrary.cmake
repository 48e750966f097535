# kad_add_library(NAME SHARED|STATIC): the core as one target, with the same flags for each kind.

# One instruction set per file: only these files hold code beyond the baseline, and level.cpp
# decides at run time whether it is called.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(kad_x86_levels 1)
else()
  set(kad_x86_levels 0)
endif()

# No contraction of a * b + c: the order of arithmetic is defined, and equal at every level.
set(kad_compile_options -ffp-contract=off -fno-math-errno -Wall -Wextra -Wpedantic -Wshadow
    -Wconversion)

function(kad_add_library name kind)
  set(sources ${kad_sources})
  if(kad_x86_levels)
    list(APPEND sources ${kad_avx2_sources} ${kad_avx512_sources})
  endif()
  list(TRANSFORM sources PREPEND "${kad_source_dir}/")
  add_library(${name} ${kind} ${sources})
  target_compile_features(${name} PRIVATE cxx_std_17)
  set_target_properties(${name} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(${name} PRIVATE
    KAD_VERSION_STRING="${PROJECT_VERSION}" KAD_X86_LEVELS=${kad_x86_levels})
  target_compile_options(${name} PRIVATE ${kad_compile_options} $<$<CONFIG:Release>:-O3>
    $<$<BOOL:${KAD_WERROR}>:-Werror>)
  target_include_directories(${name}
    PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/kad_sdk/include>"
           "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>"
    PRIVATE "${kad_source_dir}")
  target_link_libraries(${name} PRIVATE Threads::Threads)
  if(KAD_SANITIZE)
    target_compile_options(${name} PUBLIC -fsanitize=${KAD_SANITIZE} -fno-omit-frame-pointer -g)
    target_link_options(${name} PUBLIC -fsanitize=${KAD_SANITIZE})
  endif()
endfunction()
