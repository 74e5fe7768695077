#!/bin/bash
# Build and push the image, its bases named by digest, and name it by digest in the cluster files:
#   cluster/image.sh registry.example/namd:0.1.0
# A tag can be moved to other bytes and a digest cannot. Digests of the bases are looked up once and
# kept in the Dockerfile; commit them, and the same bytes are built on next time. To move to newer
# bases, delete them there.
set -euo pipefail

image=${1:?name the image to push, such as registry.example/namd:0.1.0}
readonly DIGEST='sha256:[0-9a-f]{64}'
readonly FILES=(cluster/raycluster.yaml cluster/rayjob.yaml cluster/ray-up.yaml)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

require_digest() { # what it is of, digest
  [[ $2 =~ ^$DIGEST$ ]] && return
  echo "$1: the registry named no digest, but '$2'; nothing was changed for it" >&2
  exit 1
}

# Everything is looked up before anything is changed.
cp cluster/Dockerfile "$work/Dockerfile"
while read -r base; do
  digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
  require_digest "$base" "$digest"
  sed -E "s|^(ARG [A-Z]+_BASE=$base)\$|\1@$digest|" "$work/Dockerfile" >"$work/next"
  mv "$work/next" "$work/Dockerfile"
done < <(sed -nE 's/^ARG [A-Z]+_BASE=([^@]+)$/\1/p' cluster/Dockerfile)
cat "$work/Dockerfile" >cluster/Dockerfile

docker buildx build --push --file cluster/Dockerfile --tag "$image" \
  --metadata-file "$work/metadata.json" .
digest=$(sed -nE "s/.*\"containerimage.digest\": *\"($DIGEST)\".*/\1/p" "$work/metadata.json")
require_digest "$image" "$digest"
for file in "${FILES[@]}"; do
  sed -E "s|^( *(- )?image: (\&image )?)[^* ][^ ]*|\1${image%@*}@$digest|" "$file" >"$work/next"
  cat "$work/next" >"$file"
done
echo "${image%@*}@$digest"
