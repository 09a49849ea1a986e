// A plate's images to single-cell features: in place of nf-core/cellpainting's illumination, analysis and CytoTable steps.
process JUMPGPU_EXTRACT {
    tag "${meta.id}"
    label 'process_high'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${task.ext.container ?: 'jumpgpu:cpu'}"

    input:
    tuple val(meta), path(images, stageAs: 'images/*')
    path config

    output:
    tuple val(meta), path("${prefix}.zarr"), emit: plate
    tuple val(meta), path("${prefix}.parquet"), emit: cells
    tuple val(meta), path("quarantine.csv"), emit: quarantine, optional: true
    tuple val(meta), path("*_mqc.json"), emit: multiqc
    path "versions.yml", emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def settings = config ? "--config ${config}" : ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    # 3: done, and quarantine.csv names the sites that were left out
    jumpgpu extract --plate ${prefix} --images images ${settings} --device ${device} --threads ${task.cpus} --quiet \\
        --save-overview --output . ${args} || [ \$? = 3 ]
    jumpgpu export ${prefix}.zarr --format parquet --output .
    jumpgpu report ${prefix}.zarr --multiqc ${prefix}_mqc.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        jumpgpu: \$(jumpgpu --version | sed 's/jumpgpu //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}.zarr
    touch ${prefix}.zarr/zarr.json ${prefix}.parquet ${prefix}_mqc.json

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        jumpgpu: \$(jumpgpu --version | sed 's/jumpgpu //')
    END_VERSIONS
    """
}
