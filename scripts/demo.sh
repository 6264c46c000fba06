#!/usr/bin/env bash
# What `make demo` shows once everything is built: a video through a model, then the page, where a camera takes the
# video's place. Ends with the service, or when it is interrupted.
#
#   scripts/demo.sh FOLDER INPUT MODEL BATCH LISTEN      FOLDER: of comfystream and libgstcomfy.so
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 input=$2 model=$3 batch=$4 listen=$5
export GST_PLUGIN_PATH=$folder${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}

"$folder/comfystream" demo --input "$input" --model "$model" --batch "$batch" --out "${OUT:-out}"
echo
echo "Now live: the page sends a camera, or a test picture, through the same model. Ctrl-C ends it."
exec "$folder/comfystream" serve --listen "$listen" --model "$model" --models models --source "clip=$input"
