#!/usr/bin/env bash
# Prepares a machine for building and running AnimateDiff: Debian packages and libtorch.
#
# Idempotent, and silent about the network once everything is in place: a second run only looks.
# What it honours:
#   LIBTORCH=/path        use that libtorch (2.11.0) instead of the cached one
#   ANIMATEDIFF_CACHE     where libtorch is kept (default ${XDG_CACHE_HOME:-~/.cache}/animatediff)
#   ANIMATEDIFF_LIBTORCH  cpu or cuda: which libtorch to fetch (default: cuda where there is an NVIDIA driver); for machines that build
#                         and have no GPU themselves
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

readonly torch_version=2.11.0
readonly packages=(
  build-essential pkg-config clang libclang-dev
  libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libswresample-dev
)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

install_debian_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if ((EUID == 0)); then
    say "installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
  elif command -v sudo >/dev/null && sudo -v; then
    say "installing ${missing[*]} (through sudo)"
    sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
  else
    say "these Debian packages are missing and this user may not install them; as root run"
    say "  apt-get update && ${install[*]}"
    exit 1
  fi
}

nvidia_driver_present() { [[ -e /proc/driver/nvidia/version || -e /dev/nvidiactl ]]; }

# Installs the PyPI wheel, which carries libtorch's headers and libraries, into $1 by way of a staging folder, so that an
# interrupted download leaves nothing that looks complete. Any Python 3 will do: nothing of Python is ever loaded.
install_libtorch() {
  local target=$1 staging=$1.partial.$$ variant=$2
  local pip=(python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action=ignore
    --target "$staging" --only-binary=:all: --implementation cp --python-version 3.11
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64
    --platform manylinux_2_24_x86_64 --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64
    --platform manylinux2014_x86_64)
  command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 with pip is needed to fetch libtorch (Debian: apt-get install python3-pip)"
  mkdir -p "$(dirname "$target")"
  trap 'rm -rf "$staging"' EXIT
  if [[ $variant == cuda ]]; then
    say "fetching libtorch $torch_version for CUDA 13 (about 4.6 GB) into $target"
    # The last two are headers that NCCL's part of the program is compiled against.
    "${pip[@]}" "torch==$torch_version" 'nvidia-cuda-crt==13.0.88' 'nvidia-cuda-cccl==13.0.85' >&2
  else
    say "fetching libtorch $torch_version for the CPU (about 540 MB) into $target"
    "${pip[@]}" --no-deps "torch==$torch_version" 'nvidia-cuda-runtime==13.0.96' 'nvidia-cuda-cupti==13.0.85' >&2
    # The CUDA half of the wheel cannot be loaded without CUDA's own libraries: half of the space for nothing.
    rm -f "$staging"/torch/lib/libtorch_cuda*.so "$staging"/torch/lib/libtorch_nvshmem.so
  fi
  find "$staging" -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia ! -name torch-"$torch_version"*.dist-info -exec rm -rf {} +
  find "$staging/torch" -mindepth 1 -maxdepth 1 ! -name lib ! -name include ! -name share ! -name version.py -exec rm -rf {} +
  mv -T "$staging" "$target"
  trap - EXIT
}

find_libtorch() {
  if [[ -n ${LIBTORCH:-} ]]; then
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] || fail "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so"
    printf '%s\n' "$LIBTORCH"
    return
  fi
  local cache=${ANIMATEDIFF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/animatediff} variant=${ANIMATEDIFF_LIBTORCH:-}
  if [[ -z $variant ]]; then variant=cpu; nvidia_driver_present && variant=cuda; fi
  [[ $variant == cpu || $variant == cuda ]] || fail "ANIMATEDIFF_LIBTORCH=$variant: cpu or cuda is expected"
  local target=$cache/libtorch-$torch_version-$variant
  if [[ ! -d $target ]]; then
    mkdir -p "$cache"
    exec {lock}>"$cache/.setup.lock"
    flock "$lock"                       # another checkout may be fetching the same thing
    if [[ ! -d $target ]]; then install_libtorch "$target" "$variant"; fi
    flock -u "$lock"
  fi
  printf '%s\n' "$target/torch"
}

command -v cargo >/dev/null || fail "cargo was not found; install Rust 1.95 or newer from https://rustup.rs"
install_debian_packages
libtorch=$(find_libtorch)
# `.cargo/config.toml` points LIBTORCH at this link, so that plain cargo works in every shell afterwards.
[[ $(readlink .libtorch 2>/dev/null) == "$libtorch" ]] || ln -sfn "$libtorch" .libtorch
