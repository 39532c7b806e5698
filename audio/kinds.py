"""What ffmpeg may open for us: every demuxer that holds its media itself, every decoder of recorded sound. Lists only.

Whatever the build has beside these is refused, for reasons that tests/test_audio_kinds.py gives one by one.
"""

# Demuxers, by any of their names. Not here: playlists and whatever names other files, devices, pictures, raw video,
# subtitles, samples without a header.
FORMATS = frozenset(
    (
        "3dostr 3g2 3gp 4xm aa aac aax ac3 ac4 ace acm act adp ads adx aea afc aiff aix alp amr amrnb amrwb apac "
        "apc ape apm argo_asf argo_brp argo_cvg asf asf_o ast au avi avr avs bethsoftvid bfi bfstm bink binka bit "
        "bmv boa bonk brstm c93 caf cdxl codec2 daud dcstr derf dfa dhav dsf dsicin dss dts dtshd dv dxa ea "
        "ea_cdata eac3 epaf film_cpk flac flv frm fsb fwse g723_1 gdv genh gxf hca hcom hnm hxvs iamf idcin iff ifv "
        "ilbc ipmovie ircam iss iv8 ivr jv kux kvag laf lc3 live_flv lmlm4 loas luodat lvf lxf m4a matroska mca "
        "mgsts mj2 mlp mm mmf mods moflex mov mp3 mp4 mpc mpc8 mpeg mpegts mpegtsraw msf msnwctcp msp mtaf mtv musx "
        "mv mvi mxf mxg nc nistsphere nsp nsv nut nuv ogg oma osq oss paf pmp pp_bnk psxstr pva pvf qcp qoa r3d "
        "redspark rka rl2 rm roq rpl rsd rso s337m sbg scd sdns sdr2 sds sdx sga shn siff simbiosis_imx smjpeg smk "
        "smush sol sox spdif svag svs swf tak thp tiertexseq tmv truehd tta ty usm vag vividas vivo vmd voc vpk vqf "
        "w64 wady wav wavarc wc3movie webm wsaud wsd wsvqa wtv wv wve xa xmd xmv xvag xwma yop"
    ).split()
)
# Decoders. Those of video are not here: pictures are never decoded, whatever the file.
CODECS = frozenset(
    (
        "8svx_exp 8svx_fib aac aac_fixed aac_latm ac3 ac3_fixed acelp.kelvin adpcm_4xm adpcm_adx adpcm_afc "
        "adpcm_agm adpcm_aica adpcm_argo adpcm_ct adpcm_dtk adpcm_ea adpcm_ea_maxis_xa adpcm_ea_r1 adpcm_ea_r2 "
        "adpcm_ea_r3 adpcm_ea_xas adpcm_ima_acorn adpcm_ima_alp adpcm_ima_amv adpcm_ima_apc adpcm_ima_apm "
        "adpcm_ima_cunning adpcm_ima_dat4 adpcm_ima_dk3 adpcm_ima_dk4 adpcm_ima_ea_eacs adpcm_ima_ea_sead "
        "adpcm_ima_iss adpcm_ima_moflex adpcm_ima_mtf adpcm_ima_oki adpcm_ima_qt adpcm_ima_rad adpcm_ima_smjpeg "
        "adpcm_ima_ssi adpcm_ima_wav adpcm_ima_ws adpcm_ima_xbox adpcm_ms adpcm_mtaf adpcm_psx adpcm_sanyo "
        "adpcm_sbpro_2 adpcm_sbpro_3 adpcm_sbpro_4 adpcm_swf adpcm_thp adpcm_thp_le adpcm_vima adpcm_xa adpcm_xmd "
        "adpcm_yamaha adpcm_zork alac als amrnb amrwb apac ape aptx aptx_hd atrac1 atrac3 atrac3al atrac3plus "
        "atrac3plusal atrac9 binkaudio_dct binkaudio_rdft bmv_audio bonk cbd2_dpcm cook dca derf_dpcm dfpwm dolby_e "
        "dsd_lsbf dsd_lsbf_planar dsd_msbf dsd_msbf_planar dsicinaudio dss_sp dst dvaudio eac3 evrc fastaudio flac "
        "ftr g722 g723_1 g726 g726le g728 g729 gremlin_dpcm gsm gsm_ms hca hcom iac ilbc imc interplay_dpcm "
        "interplayacm libopencore_amrnb libopencore_amrwb libopus mace3 mace6 metasound misc4 mlp mp1 mp1float mp2 "
        "mp2float mp3 mp3adu mp3adufloat mp3float mp3on4 mp3on4float mpc7 mpc8 msnsiren nellymoser on2avc opus osq "
        "paf_audio pcm_alaw pcm_bluray pcm_dvd pcm_f16le pcm_f24le pcm_f32be pcm_f32le pcm_f64be pcm_f64le pcm_lxf "
        "pcm_mulaw pcm_s16be pcm_s16be_planar pcm_s16le pcm_s16le_planar pcm_s24be pcm_s24daud pcm_s24le "
        "pcm_s24le_planar pcm_s32be pcm_s32le pcm_s32le_planar pcm_s64be pcm_s64le pcm_s8 pcm_s8_planar pcm_sga "
        "pcm_u16be pcm_u16le pcm_u24be pcm_u24le pcm_u32be pcm_u32le pcm_u8 pcm_vidc qcelp qdm2 qdmc qoa ralf "
        "real_144 real_288 rka roq_dpcm s302m sbc sdx2_dpcm shorten sipr siren smackaud sol_dpcm speex tak truehd "
        "truespeech tta twinvq vmdaudio vorbis wady_dpcm wavarc wavpack wmalossless wmapro wmav1 wmav2 wmavoice "
        "ws_snd1 xan_dpcm xma1 xma2"
    ).split()
)
OPEN_OPTIONS = {
    "format_whitelist": ",".join(sorted(FORMATS)),
    "codec_whitelist": ",".join(sorted(CODECS)),
    "protocol_whitelist": "none",  # no such protocol: a demuxer that wants a second file is refused
    "enable_drefs": "0",  # QuickTime tracks that live in another file
}
