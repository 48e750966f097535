# KAD_WITH_RUNTIME: the detector of kad/detector.h. It needs one header of ONNX Runtime to build;
# the library itself is found and opened at run time.

set(kad_runtime_sources
    caller_network.cpp cutpaste_scorer.cpp detector.cpp log.cpp onnx_network.cpp onnx_provider.cpp
    onnxruntime.cpp patchcore_scorer.cpp placed_rules.cpp prepare.cpp result.cpp score_board.cpp
    session.cpp session_api.cpp tensorrt.cpp)
list(TRANSFORM kad_runtime_sources PREPEND "${kad_source_dir}/runtime/")
list(APPEND kad_sources ${kad_reader_sources} ${kad_runtime_sources})

find_path(KAD_ONNXRUNTIME_INCLUDE onnxruntime_c_api.h
          PATH_SUFFIXES onnxruntime onnxruntime/core/session
          PATHS "${PROJECT_SOURCE_DIR}/build/onnxruntime"
          DOC "Folder of onnxruntime_c_api.h, 1.20 or newer")
if(NOT KAD_ONNXRUNTIME_INCLUDE)
  message(FATAL_ERROR
    "KAD_WITH_RUNTIME needs onnxruntime_c_api.h. Name its folder in KAD_ONNXRUNTIME_INCLUDE: it is in "
    "Debian 13's package libonnxruntime-dev, in the release archives of ONNX Runtime, and "
    "cmake/onnxruntime_header.sh puts it into a folder on a machine with apt.")
endif()

function(kad_add_runtime name)
  target_include_directories(${name} SYSTEM PRIVATE "${KAD_ONNXRUNTIME_INCLUDE}")
  target_link_libraries(${name} PRIVATE ${CMAKE_DL_LIBS})
endfunction()
