# Installing libkad for C and C++ users: library, headers, find_package(kad) and pkg-config, and the
# packages that CPack makes of it.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(kad_config_dir "${CMAKE_INSTALL_LIBDIR}/cmake/kad")

# The library with its version goes into the package `libkad`, all that building needs into
# `libkad-dev`.
function(kad_install_target name export)
  install(TARGETS ${name} EXPORT ${export}
          LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT libkad
                  NAMELINK_COMPONENT libkad-dev
          ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT libkad-dev
          INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  install(EXPORT ${export} NAMESPACE kad:: DESTINATION "${kad_config_dir}" COMPONENT libkad-dev)
endfunction()

kad_install_target(kad kadTargets)
if(KAD_BUILD_STATIC)
  kad_install_target(kad_static kadStaticTargets)
endif()
set(kad_headers kad.h kad.hpp)
if(KAD_WITH_RUNTIME)
  list(APPEND kad_headers detector.h)
endif()
list(TRANSFORM kad_headers PREPEND kad_sdk/include/kad/)
install(FILES ${kad_headers} DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/kad" COMPONENT libkad-dev)

if(KAD_WITH_RUNTIME)
  install(DIRECTORY examples/c examples/cpp examples/subproject
          DESTINATION "${CMAKE_INSTALL_DOCDIR}/examples" COMPONENT libkad-dev)
endif()

configure_package_config_file(cmake/kadConfig.cmake.in kadConfig.cmake
                              INSTALL_DESTINATION "${kad_config_dir}")
write_basic_package_version_file(kadConfigVersion.cmake COMPATIBILITY ${kad_compatibility})
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/kadConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/kadConfigVersion.cmake"
        DESTINATION "${kad_config_dir}" COMPONENT libkad-dev)

# The prefix is found from where kad.pc lies, so an installed tree can be moved. An absolute
# GNUInstallDirs path stays what it is, a relative one hangs below the prefix.
file(RELATIVE_PATH kad_pc_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
cmake_path(APPEND kad_pc_libdir "\${prefix}" "${CMAKE_INSTALL_LIBDIR}")
cmake_path(APPEND kad_pc_includedir "\${prefix}" "${CMAKE_INSTALL_INCLUDEDIR}")
configure_file(cmake/kad.pc.in kad.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/kad.pc"
        DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT libkad-dev)

# `cpack` in the build folder: one .tar.gz with all of it, and two .deb.
if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR TGZ)
  if(EXISTS /etc/debian_version)
    list(APPEND CPACK_GENERATOR DEB)
  endif()
  set(CPACK_PACKAGE_VENDOR kad)
  set(CPACK_PACKAGE_CONTACT "the kad engineers <kad@localhost>")
  set(CPACK_PACKAGE_FILE_NAME
      "kad-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
  set(CPACK_COMPONENTS_ALL libkad libkad-dev)
  set(CPACK_COMPONENTS_GROUPING IGNORE)
  set(CPACK_DEB_COMPONENT_INSTALL ON)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION libs)
  set(CPACK_DEBIAN_LIBKAD_PACKAGE_NAME "libkad${kad_abi_version}")
  set(CPACK_DEBIAN_LIBKAD-DEV_PACKAGE_NAME libkad-dev)
  set(CPACK_DEBIAN_LIBKAD-DEV_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_LIBKAD-DEV_PACKAGE_DEPENDS
      "libkad${kad_abi_version} (= ${PROJECT_VERSION})")
  find_program(KAD_SHLIBDEPS dpkg-shlibdeps)
  mark_as_advanced(KAD_SHLIBDEPS)
  if(KAD_SHLIBDEPS)
    set(CPACK_DEBIAN_LIBKAD_PACKAGE_SHLIBDEPS ON)
  endif()
  if(KAD_WITH_RUNTIME)
    set(CPACK_DEBIAN_LIBKAD_PACKAGE_SUGGESTS libonnxruntime1.21)
  endif()
  include(CPack)
endif()
