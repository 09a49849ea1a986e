# jumpgpu on processors: `make wheels`, then `docker build -f docker/cpu.Dockerfile -t jumpgpu:cpu .`
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY dist/jumpgpu-*-manylinux_2_28_*.whl /wheels/
RUN pip install --no-cache-dir --extra-index-url ${TORCH_INDEX} --find-links /wheels "jumpgpu[map,harmony,cluster]" \
    && rm -r /wheels \
    && useradd --create-home jumpgpu
USER jumpgpu
WORKDIR /data
ENTRYPOINT ["jumpgpu"]
CMD ["doctor"]
