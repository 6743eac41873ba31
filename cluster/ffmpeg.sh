#!/bin/sh
# FFmpeg for torchcodec, from the sources of the distribution with its security fixes: ffmpeg.sh PREFIX
# Debian's own build is under the GPL, and decodes over 200 formats. This one is under the LGPL 2.1 or later, and holds
# only what torchcodec is given (moderation/media/video_reader.py): no encoder, no network, no program.
set -eu
sed -i 's/^Types: deb$/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources
apt-get update
apt-get install -y --no-install-recommends dpkg-dev gcc libc6-dev libdav1d-dev make nasm pkg-config
cd "$(mktemp -d)"
apt-get source ffmpeg
cd ffmpeg-*/
./configure --prefix="$1" --enable-shared --disable-static --disable-programs --disable-doc --disable-autodetect \
    --disable-network --disable-everything --enable-libdav1d --enable-protocol=file \
    --enable-demuxer=mov,matroska --enable-decoder=h264,hevc,vp8,vp9,libdav1d \
    --enable-parser=h264,hevc,vp8,vp9,av1 \
    --enable-bsf=h264_mp4toannexb,hevc_mp4toannexb,vp9_superframe_split,av1_frame_split,extract_extradata \
    --enable-filter=buffer,buffersink,copy,format,hflip,null,rotate,scale,transpose,vflip
make -j "$(nproc)"
make install
