#!/bin/sh
# Put the C header of ONNX Runtime into a folder: onnxruntime_header.sh FOLDER
#
# The wheels of ONNX Runtime hold its library but no header, and Debian has the package first in
# release 13. So it is taken from the mirror that this machine's apt uses already, with lists of its
# own, and unpacked, not installed. The header's version need not be that of the library.
set -eu
folder=$1
header=onnxruntime_c_api.h
[ -f "$folder/$header" ] && exit 0
mkdir -p "$(dirname "$folder")"
if [ -f "/usr/include/onnxruntime/$header" ]; then
  ln -sfn /usr/include/onnxruntime "$folder"
  exit 0
fi

for tool in apt-get dpkg; do
  command -v "$tool" > /dev/null || { echo "$0: needs $tool, which Debian has" >&2; exit 1; }
done
mirror=$(apt-get --print-uris update 2> /dev/null | sed -n "s|^'\(.*/debian\)/dists/.*|\1|p" | head -n 1)
[ -n "$mirror" ] || { echo "$0: apt has no source of Debian's packages: take onnxruntime_c_api.h from a release of ONNX Runtime, and name its folder in -DKAD_ONNXRUNTIME_INCLUDE" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
apt() {
  (cd "$work" && apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" \
    -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@")
}
apt update
apt download libonnxruntime-dev
dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/package"
mv "$work/package/usr/include/onnxruntime" "$folder"
