# Installing libkad for C and C++ users: library, header, find_package(kad) and pkg-config.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(kad_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/kad")

function(kad_install_target name export)
  install(TARGETS ${name} EXPORT ${export}
          LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
          INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  install(EXPORT ${export} NAMESPACE kad:: DESTINATION "${kad_config_dir}")
endfunction()

kad_install_target(kad kadTargets)
if(KAD_BUILD_STATIC)
  kad_install_target(kad_static kadStaticTargets)
endif()
install(DIRECTORY kad_sdk/include/kad DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")

configure_package_config_file(cmake/kadConfig.cmake.in kadConfig.cmake
                              INSTALL_DESTINATION "${kad_config_dir}")
# Before 1.0 a minor version may break callers.
write_basic_package_version_file(kadConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/kadConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/kadConfigVersion.cmake"
        DESTINATION "${kad_config_dir}")

# The prefix is found from where kad.pc lies, so an installed tree can be moved. An absolute
# GNUInstallDirs path stays what it is, a relative one hangs below the prefix.
file(RELATIVE_PATH kad_pc_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
cmake_path(APPEND kad_pc_libdir "\${prefix}" "${CMAKE_INSTALL_LIBDIR}")
cmake_path(APPEND kad_pc_includedir "\${prefix}" "${CMAKE_INSTALL_INCLUDEDIR}")
configure_file(cmake/kad.pc.in kad.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/kad.pc"
        DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
